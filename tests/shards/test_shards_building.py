import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from rrcm_dist.data.index import load_index
from rrcm_dist.errors import InvalidInput, RunFailure
from shards.build_folder import check_target
from shards.image_folder import image_folder
from shards.images import Resize


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def sample_bytes(index, row):
    with open(Path(index.place) / index.shards[index.shard_of[row]].name, "rb") as file:
        file.seek(int(index.offset[row]))
        return file.read(int(index.length[row]))


def test_every_file_is_in_the_shards_byte_for_byte_with_its_class(dataset, source_folder):
    index = load_index(dataset)
    assert index.classes == ("cat", "dog", "fish")
    assert [shard.samples for shard in index.shards] == [8, 8, 8, 9]
    found = {key: (sample_bytes(index, row), int(index.label[row])) for row, key in enumerate(index.keys)}
    expected = {
        f"{path.parent.name}/{path.stem}": (path.read_bytes(), index.classes.index(path.parent.name))
        for path in source_folder.rglob("*.JPEG")
    }
    assert found == expected


def test_webdataset_reads_the_shards_in_the_order_of_the_index(dataset):
    index = load_index(dataset)
    tars = [str(dataset / shard.name) for shard in index.shards]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in samples] == list(index.keys)
    assert [sample["cls"] for sample in samples] == index.label.tolist()
    assert samples[0]["jpg"].size == (48, 36)


def test_tars_hold_nothing_of_this_machine(dataset):
    with tarfile.open(dataset / "shard-000000.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_same_images_give_the_same_bytes(dataset, source_folder, tmp_path, build_folder, jobs):
    build_folder(source_folder, tmp_path / "again", jobs=jobs)
    assert contents(tmp_path / "again") == contents(dataset)


def test_shuffled_shards_mix_classes_and_sorted_ones_are_in_the_order_of_imagefolder(
    source_folder, tmp_path, build_folder
):
    (source_folder / "cat" / "a").mkdir()
    (source_folder / "cat" / "cat_0.JPEG").rename(source_folder / "cat" / "a" / "cat_0.JPEG")
    build_folder(source_folder, tmp_path / "sorted", order="sorted")
    keys = list(load_index(tmp_path / "sorted").keys)
    # torchvision's ImageFolder: classes by name, folders of a class by path, files of a folder by name.
    cats = [f"cat/cat_{number}" for number in range(1, 10)]
    dogs = [f"dog/dog_{number}" for number in (0, 1, 10, *range(2, 10))]
    fish = [f"fish/fish_{number}" for number in (0, 1, 10, 11, *range(2, 10))]
    assert keys == [*cats, "cat/a/cat_0", *dogs, *fish]
    build_folder(source_folder, tmp_path / "shuffled")
    mixed = load_index(tmp_path / "shuffled")
    assert set(mixed.keys) == set(keys)
    assert all(len(set(mixed.label[mixed.shard_of == shard])) == 3 for shard in range(len(mixed.shards)))


def test_another_seed_is_another_order(dataset, source_folder, tmp_path, build_folder):
    build_folder(source_folder, tmp_path / "other", seed=1)
    keys, other = load_index(dataset).keys, load_index(tmp_path / "other").keys
    assert sorted(keys) == sorted(other)
    assert list(keys) != list(other)


def test_resizing_shrinks_the_short_side_and_leaves_smaller_images_untouched(
    source_folder, tmp_path, build_folder, make_photograph
):
    small = source_folder / "cat" / "small.png"
    make_photograph(1, (30, 20)).save(small)
    turned = make_photograph(2, (64, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(source_folder / "cat" / "turned.jpg", exif=exif)
    build_folder(source_folder, tmp_path / "out", resize=Resize(24, 90))
    tars = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    images = {s["__key__"]: s for s in webdataset.WebDataset(tars, shardshuffle=False).decode("pil")}
    assert images["cat/cat_3"]["jpg"].size == (32, 24)
    assert images["cat/turned"]["jpg"].size == (24, 38)
    index = load_index(tmp_path / "out")
    assert sample_bytes(index, list(index.keys).index("cat/small")) == small.read_bytes()


def test_names_that_a_tar_reader_would_misread_get_safe_unique_keys(
    source_folder, tmp_path, build_folder, make_photograph
):
    for name in ("a.b.jpg", "a.c.jpg", "same.jpg", "same.png", "größe.jpg", "two words.jpg", "l" * 200 + ".jpg"):
        make_photograph(7).save(source_folder / "cat" / name)
    build_folder(source_folder, tmp_path / "out")
    index = load_index(tmp_path / "out")
    assert len(set(index.keys)) == len(index) == 40
    tars = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert [s["__key__"] for s in webdataset.WebDataset(tars, shardshuffle=False)] == list(index.keys)


def test_a_finished_dataset_is_only_replaced_by_force(dataset, source_folder, build_folder):
    before = contents(dataset)
    with pytest.raises(InvalidInput, match="holds a finished dataset"):
        check_target(dataset, force=False)
    (source_folder / "cat" / "cat_0.JPEG").unlink()
    check_target(dataset, force=True)
    build_folder(source_folder, dataset, force=True, samples_per_shard=40)
    assert len(load_index(dataset)) == 32
    assert sorted(path.name for path in dataset.iterdir()) == ["index.json", "samples.npz", "shard-000000.tar"]
    assert contents(dataset) != before


def test_a_folder_of_other_things_is_never_built_into(tmp_path, source_folder):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("…")
    for force in (False, True):
        with pytest.raises(InvalidInput, match="holds no dataset"):
            check_target(tmp_path / "thesis", force)
    with pytest.raises(InvalidInput, match="lies within the source"):
        check_target(source_folder / "out", False, source_folder)


def test_sources_that_cannot_be_built_from_are_refused_in_words(tmp_path, source_folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    (source_folder / "fish" / "fish_0.JPEG").rename(tmp_path / "flat" / "x.jpg")
    with pytest.raises(InvalidInput, match="does not exist"):
        image_folder(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="holds nothing of use"):
        image_folder(tmp_path / "empty")
    with pytest.raises(InvalidInput, match="1 images but no folder"):
        image_folder(tmp_path / "flat")
    (source_folder / "gnu").mkdir()
    (source_folder / "gnu" / "notes.txt").write_text("no image")
    with pytest.raises(InvalidInput, match="no image in the class gnu"):
        image_folder(source_folder)
    (tmp_path / "parent").mkdir()
    source_folder.rename(tmp_path / "parent" / "train")
    with pytest.raises(InvalidInput, match="holds splits, not classes"):
        image_folder(tmp_path / "parent")


def test_a_disk_too_small_is_noticed_before_anything_is_written(source_folder, tmp_path, build_folder, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5000, 5000))
    with pytest.raises(RunFailure, match=r"needs .* kB in .*5.0 kB are free"):
        build_folder(source_folder, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar"))


def test_the_command_ends_with_2_for_a_wrong_request_and_says_so_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "shards", "build", "imagefolder", str(tmp_path / "nowhere"), str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "nowhere does not exist" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_offsets_point_at_decodable_images(dataset):
    import io

    index = load_index(dataset)
    sizes = {Image.open(io.BytesIO(sample_bytes(index, row))).size for row in range(len(index))}
    assert sizes == {(48, 36)}
    assert np.all(np.diff(index.shard_of) >= 0)
