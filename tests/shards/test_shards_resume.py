import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rrcm_dist.data.index import load_index
from rrcm_dist.errors import InvalidInput
from shards.build_folder import opened


@pytest.fixture
def slow_source(tmp_path, make_photograph):
    """36 images that take about 25 ms each to decode."""
    folder = tmp_path / "slow"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        picture = folder / name / "0.jpg"
        make_photograph(1, (2400, 1600)).save(picture)
        for number in range(1, 18):
            os.link(picture, folder / name / f"{number}.jpg")
    return folder


def command(source, out, jobs, *more):
    arguments = ["build", "imagefolder", str(source), str(out), "--samples-per-shard", "4", "--jobs", str(jobs), *more]
    return [sys.executable, "-m", "shards", *arguments]


def start_and_kill(source, out, jobs, finished_shards=2):
    """Start a build and end it by kill -9 once some shards are finished; returns the process ids of its workers."""
    running = subprocess.Popen(command(source, out, jobs), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.glob(".building/shard-*.json"))) < finished_shards:
        assert running.poll() is None, "the build ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    workers = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent(pid) == running.pid]
    running.send_signal(signal.SIGKILL)
    running.wait()
    return workers


def parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_build_goes_on_from_its_finished_shards_to_the_same_bytes(slow_source, tmp_path, build_folder, jobs):
    build_folder(slow_source, tmp_path / "reference", samples_per_shard=4)
    expected = contents(tmp_path / "reference")
    out = tmp_path / "out"
    workers = start_and_kill(slow_source, out, jobs)
    assert not (out / "index.json").exists()
    finished = {path.name: path for path in out.glob("shard-*.tar")}
    assert 2 <= len(finished) < 9
    assert all(path.read_bytes() == expected[name] for name, path in finished.items())
    with pytest.raises(InvalidInput, match="is not finished"):
        load_index(out)
    recorded = [out / f"{path.stem}.tar" for path in out.glob(".building/shard-*.json")]
    written = {path: path.stat().st_ino for path in recorded}
    ended = subprocess.run(command(slow_source, out, jobs), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert f"{len(recorded)} of them from an earlier run" in ended.stdout
    assert {path: path.stat().st_ino for path in recorded} == written
    assert contents(out) == expected
    deadline = time.monotonic() + 5
    while any(parent(pid) is not None for pid in workers):
        assert time.monotonic() < deadline, "worker processes outlive their parent"
        time.sleep(0.05)


def test_an_unfinished_build_is_not_taken_up_with_other_options_or_another_source(slow_source, tmp_path, build_folder):
    out = tmp_path / "out"
    start_and_kill(slow_source, out, jobs=1, finished_shards=1)
    with pytest.raises(InvalidInput, match="order was shuffled, is now sorted"):
        build_folder(slow_source, out, samples_per_shard=4, order="sorted")
    (slow_source / "cat" / "17.jpg").unlink()
    with pytest.raises(InvalidInput, match="the images of the source have changed"):
        build_folder(slow_source, out, samples_per_shard=4)
    built = build_folder(slow_source, out, samples_per_shard=5, force=True)
    assert (built.samples, built.kept_shards) == (35, 0)
    assert len(load_index(out)) == 35


def test_a_finished_shard_that_was_damaged_since_is_written_again(source_folder, tmp_path, build_folder, monkeypatch):
    from shards import building

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(building, "_write_dataset", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_folder(source_folder, out)
    os.truncate(out / "shard-000002.tar", 1000)
    built = build_folder(source_folder, out)
    assert (built.shards, built.kept_shards) == (4, 3)
    build_folder(source_folder, tmp_path / "reference")
    assert contents(out) == contents(tmp_path / "reference")


def test_two_builds_do_not_work_in_one_folder_at_once(source_folder, tmp_path, build_folder):
    with opened(tmp_path / "out"), pytest.raises(InvalidInput, match="another build is at work"):
        build_folder(source_folder, tmp_path / "out")
    build_folder(source_folder, tmp_path / "out")


def test_ctrl_c_leaves_finished_shards_and_nothing_half_written(slow_source, tmp_path):
    out = tmp_path / "out"
    running = subprocess.Popen(command(slow_source, out, 2), stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(out.glob(".building/shard-*.json")):
        assert running.poll() is None
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in said
    assert "the same command goes on from there" in said
    assert not list(out.glob(".*.partial"))
    for record in out.glob(".building/shard-*.json"):
        shard = json.loads(record.read_text())["shard"]
        assert (out / shard["name"]).stat().st_size == shard["bytes"]


def test_a_killed_replacement_goes_on_and_leaves_nothing_of_the_old_dataset(
    slow_source, source_folder, tmp_path, build_folder
):
    out = tmp_path / "out"
    build_folder(source_folder, out, samples_per_shard=1)
    running = subprocess.Popen(command(slow_source, out, 1, "--force"), stderr=subprocess.DEVNULL)
    while not list(out.glob(".building/shard-*.json")):
        assert running.poll() is None
        time.sleep(0.005)
    running.kill()
    running.wait()
    ended = subprocess.run(command(slow_source, out, 1, "--force"), capture_output=True, text=True)
    assert "from an earlier run" in ended.stdout
    build_folder(slow_source, tmp_path / "reference", samples_per_shard=4)
    assert contents(out) == contents(tmp_path / "reference")
