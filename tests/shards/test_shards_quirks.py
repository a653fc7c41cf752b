import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rrcm_dist.data.index import load_index
from rrcm_dist.errors import RunFailure


def save(image, path, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


@pytest.fixture
def quirky(source_folder, make_photograph):
    """Images as life has them; returns those that can be read, by key."""
    cats = source_folder / "cat"
    picture = make_photograph(42)
    exif = Image.Exif()
    exif[0x0112] = 8
    return {
        "cat/grey": save(picture.convert("L"), cats / "grey.jpg", format="JPEG"),
        "cat/cmyk": save(picture.convert("CMYK"), cats / "cmyk.jpg", format="JPEG"),
        "cat/png_in_disguise": save(picture, cats / "png_in_disguise.jpg", format="PNG"),
        "cat/rotated": save(picture, cats / "rotated.JPG", format="JPEG", exif=exif),
        "cat/palette": save(picture.convert("P"), cats / "palette.png", format="PNG"),
        "cat/transparent": save(picture.convert("RGBA"), cats / "transparent.png", format="PNG"),
    }


def test_whatever_can_be_read_is_kept_untouched_under_its_real_format(quirky, source_folder, tmp_path, build_folder):
    built = build_folder(source_folder, tmp_path / "out", samples_per_shard=100)
    assert built.quarantined == 0
    assert not (tmp_path / "out" / "quarantine.tsv").exists()
    index = load_index(tmp_path / "out")
    tar = (tmp_path / "out" / "shard-000000.tar").read_bytes()
    rows = {key: row for row, key in enumerate(index.keys)}
    for key, data in quirky.items():
        offset, length = int(index.offset[rows[key]]), int(index.length[rows[key]])
        assert tar[offset : offset + length] == data
        name = tar[offset - 512 : offset - 412].rstrip(b"\0").decode()
        assert name == key + (".png" if data.startswith(b"\x89PNG") else ".jpg")
    formats = json.loads((tmp_path / "out" / "index.json").read_text())["formats"]
    assert formats == {"jpg": 33 + 3, "png": 3}


def test_whatever_cannot_be_read_is_listed_with_its_reason_and_the_rest_is_built(
    source_folder, tmp_path, build_folder, make_photograph
):
    dogs = source_folder / "dog"
    whole = save(make_photograph(3, (200, 200)), dogs / "cut.jpg", format="JPEG")
    (dogs / "cut.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    (dogs / "nothing.jpg").write_bytes(b"")
    (dogs / "text.jpg").write_text("<html>404</html>")
    (dogs / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (dogs / "notes.txt").write_text("not named like an image")
    (dogs / ".hidden.jpg").write_text("never looked at")
    damaged = bytearray(save(make_photograph(3, (200, 200)), dogs / "damaged.png", format="PNG"))
    damaged[len(damaged) // 2] ^= 0xFF
    (dogs / "damaged.png").write_bytes(damaged)
    built = build_folder(source_folder, tmp_path / "out")
    assert (built.samples, built.quarantined) == (33, 5)
    header, *lines = (tmp_path / "out" / "quarantine.tsv").read_text().splitlines()
    assert header == "path\treason"
    reasons = dict(line.split("\t") for line in lines)
    assert list(reasons) == [
        f"dog/{name}" for name in ("cut.jpg", "damaged.png", "dangling.jpg", "nothing.jpg", "text.jpg")
    ]
    assert "truncated" in reasons["dog/cut.jpg"]
    assert reasons["dog/nothing.jpg"] == "the file is empty"
    assert reasons["dog/text.jpg"] == "not an image of a known format"
    assert reasons["dog/dangling.jpg"] == "a link to a file that is not there"
    assert len(load_index(tmp_path / "out")) == 33


def test_a_class_without_one_readable_image_fails_the_build_by_name(source_folder, tmp_path):
    (source_folder / "gnu").mkdir()
    (source_folder / "gnu" / "gnu_0.jpg").write_bytes(b"no image")
    command = [
        sys.executable,
        "-m",
        "shards",
        "build",
        "imagefolder",
        str(source_folder),
        str(tmp_path / "out"),
        "--jobs",
        "1",
    ]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "no image of the class gnu can be read" in ended.stderr
    assert "gnu/gnu_0.jpg" in (tmp_path / "out" / "quarantine.tsv").read_text()
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_shard_of_nothing_but_unreadable_images_is_left_out(source_folder, tmp_path, build_folder):
    for number in range(10):
        (source_folder / "cat" / f"cat_{number}.JPEG").write_bytes(b"no image")
    (source_folder / "cat" / "cat_9.JPEG").write_bytes((source_folder / "dog" / "dog_0.JPEG").read_bytes())
    build_folder(source_folder, tmp_path / "out", order="sorted", samples_per_shard=9)
    index = load_index(tmp_path / "out")
    assert [shard.name for shard in index.shards] == ["shard-000001.tar", "shard-000002.tar", "shard-000003.tar"]
    assert not (tmp_path / "out" / "shard-000000.tar").exists()
    assert np.bincount(index.label).tolist() == [1, 11, 12]


def test_an_image_that_vanishes_during_the_build_stops_it(source_folder, tmp_path):
    from shards.building import Options, build
    from shards.image_folder import image_folder

    source = image_folder(source_folder)
    (source_folder / "cat" / "cat_0.JPEG").unlink()
    with pytest.raises(RunFailure, match="has gone since the source was listed"):
        build(source, tmp_path / "out", Options("sorted", 0, 10, None), {}, jobs=1)
