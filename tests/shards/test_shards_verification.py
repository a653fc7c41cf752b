import json
import os
import subprocess
import sys

import numpy as np
import pytest

from rrcm_dist.data.index import load_index, write_index
from rrcm_dist.errors import InvalidInput, RunFailure
from shards.verification import verify


def problems(folder, decode=False, jobs=1):
    return list(verify(str(folder), decode, jobs).problems)


def flip(path, position):
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 0x40]))


def rewrite_index(folder, changes):
    """Write the index anew with some columns changed, as a buggy tool might: its own checksums are right."""
    index = load_index(folder)
    columns = {name: getattr(index, name).copy() for name in ("offset", "length", "label", "crc32")}
    columns["key"] = index.keys.copy()
    for name, change in changes.items():
        columns[name] = change(columns[name])
    write_index(folder, index.classes, index.shards, columns, {})
    return index


def set_row(row, value):
    def change(column):
        column[row] = value
        return column

    return change


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sound_dataset_has_no_problem(dataset, jobs):
    verified = verify(str(dataset), decode=True, jobs=jobs)
    assert (verified.samples, verified.shards, verified.problems) == (33, 4, ())


def test_any_flipped_byte_is_found_and_named(dataset):
    index = load_index(dataset)
    row = 12
    shard = index.shards[index.shard_of[row]].name
    where = {
        "image": (int(index.offset[row]) + 100, "the bytes of its image are not those of the index"),
        "header": (int(index.offset[row]) - 512 + 3, "no sound tar header"),
        "label": (
            int(index.offset[row] + index.length[row] + (-index.length[row] % 512)) + 512,
            "its label member reads",
        ),
    }
    for position, reason in where.values():
        flip(dataset / shard, position)
        (problem,) = problems(dataset)
        assert problem.startswith(f"{shard}: sample {index.keys[row]} (row {row}): ")
        assert reason in problem
        flip(dataset / shard, position)
    flip(dataset / shard, (dataset / shard).stat().st_size - 700)
    (problem,) = problems(dataset)
    assert problem == f"{shard}: its bytes have changed outside of the samples' content (sha256)"


def test_every_single_flipped_byte_of_a_shard_is_found(dataset):
    path = dataset / "shard-000002.tar"
    for position in np.random.default_rng(0).integers(0, path.stat().st_size, 40).tolist():
        flip(path, position)
        assert any(problem.startswith("shard-000002.tar: ") for problem in problems(dataset))
        flip(path, position)
    assert problems(dataset) == []


def test_a_truncated_shard_names_the_first_sample_that_is_cut_off(dataset):
    index = load_index(dataset)
    os.truncate(dataset / "shard-000001.tar", int(index.offset[11]) + 10)
    found = problems(dataset)
    assert found[0].startswith("shard-000001.tar: truncated: ")
    assert found[1] == f"shard-000001.tar: sample {index.keys[11]} (row 11) and all after it, 5 samples, are cut off"
    os.truncate(dataset / "shard-000001.tar", 0)
    assert "the shard is empty" in problems(dataset)[0]


def test_missing_and_unlisted_shards_and_bytes_too_many_are_all_named(dataset):
    (dataset / "shard-000000.tar").rename(dataset / "shard-000009.tar")
    with open(dataset / "shard-000003.tar", "ab") as file:
        file.write(bytes(512))
    found = problems(dataset)
    assert "shard-000009.tar: the index does not list this shard" in found
    assert "shard-000000.tar: the shard is missing (8 samples)" in found
    assert any(problem.startswith("shard-000003.tar: 512 bytes too long") for problem in found)


def test_swapped_shards_are_found(dataset):
    one, two = dataset / "shard-000000.tar", dataset / "shard-000001.tar"
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    assert any("the tar holds" in problem or "truncated" in problem for problem in problems(dataset))


@pytest.mark.parametrize(
    ("column", "change", "reason"),
    [
        ("label", lambda value: (value + 1) % 3, "its label member reads"),
        ("key", lambda value: "cat/nobody", "the tar holds"),
        ("offset", lambda value: value + 512, "the index places it at byte"),
        ("length", lambda value: value - 1, "bytes in the tar"),
        ("crc32", lambda value: value ^ 1, "the bytes of its image are not those of the index"),
    ],
)
def test_an_index_that_disagrees_with_the_tars_is_found_at_its_row(dataset, column, change, reason):
    index = load_index(dataset)
    value = change(index.keys[20] if column == "key" else getattr(index, column)[20])
    rewrite_index(dataset, {column: set_row(20, value)})
    found = [problem for problem in problems(dataset) if "(row 20)" in problem]
    assert any(reason in problem for problem in found)
    assert all("it is the index that is wrong" in problem for problem in found)


def test_impossible_values_and_repeated_keys_of_the_index_are_named(dataset):
    key = load_index(dataset).keys[3]
    rewrite_index(dataset, {"label": set_row(5, 77), "offset": set_row(6, 10**9), "key": set_row(4, key)})
    found = "\n".join(problems(dataset))
    assert "(row 5, shard-000000.tar) is none of 3 classes" in found
    assert "(row 6, shard-000000.tar) lies outside its shard" in found
    assert f"the key {key} is used by 2 samples" in found


def test_a_damaged_or_missing_samples_file_is_named_and_the_shards_are_still_checked(dataset):
    samples = dataset / "samples.npz"
    flip(samples, samples.stat().st_size // 2)
    flip(dataset / "shard-000001.tar", 600)
    found = "\n".join(problems(dataset))
    assert "samples.npz is damaged" in found
    assert "shard-000001.tar: " in found
    samples.unlink()
    assert problems(dataset) == [
        "samples.npz is missing",
        "shard-000001.tar: its bytes have changed somewhere (sha256)",
    ]


def test_decoding_finds_an_image_that_was_never_one(source_folder, tmp_path, build_folder):
    from shards.tar_writer import TarWriter

    build_folder(source_folder, tmp_path / "out", samples_per_shard=100)
    index = load_index(tmp_path / "out")
    with open(tmp_path / "out" / "shard-000000.tar", "wb") as file:
        writer = TarWriter(file)
        writer.add("cat/x", 0, b"no image", "jpg")
        digest = writer.finish()
    columns = {
        name: np.array([getattr(row, name) for row in writer.rows]) for name in ("offset", "length", "label", "crc32")
    }
    shard = type(index.shards[0])("shard-000000.tar", writer.bytes, digest, 1)
    write_index(tmp_path / "out", index.classes, [shard], {**columns, "key": np.array(["cat/x"])}, {})
    assert problems(tmp_path / "out") == []
    (problem,) = problems(tmp_path / "out", decode=True)
    assert "sample cat/x (row 0): its image cannot be decoded: not an image of a known format" in problem


def test_a_folder_without_a_readable_index_is_an_error(dataset, tmp_path):
    (dataset / "index.json").write_text('{"format": "rrcm-sh')
    with pytest.raises(RunFailure, match=r"index\.json is damaged"):
        problems(dataset)
    with pytest.raises(InvalidInput, match="does not exist"):
        problems(tmp_path / "nowhere")


def test_the_command_prints_every_problem_and_ends_with_1(dataset):
    flip(dataset / "shard-000000.tar", 600)
    (dataset / "shard-000003.tar").unlink()
    ended = subprocess.run([sys.executable, "-m", "shards", "verify", str(dataset)], capture_output=True, text=True)
    assert ended.returncode == 1
    assert [line.split(":")[0] for line in ended.stdout.splitlines()] == ["shard-000000.tar", "shard-000003.tar"]
    assert "2 problems" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_info_tells_samples_classes_formats_and_sizes(dataset):
    ended = subprocess.run(
        [sys.executable, "-m", "shards", "info", str(dataset), "--json"], capture_output=True, text=True, check=True
    )
    figures = json.loads(ended.stdout)
    assert (figures["samples"], figures["classes"], figures["shards"]) == (33, 3, 4)
    assert figures["formats"] == {"jpg": 33}
    assert figures["samples_per_class"] == {"least": 10, "median": 11.0, "most": 12}
    assert figures["images_looked_at"]["width"] == {"least": 48, "median": 48.0, "most": 48}
    table = subprocess.run(
        [sys.executable, "-m", "shards", "info", str(dataset)], capture_output=True, text=True, check=True
    ).stdout
    assert "33" in table
    assert "cat, dog, fish" in table
