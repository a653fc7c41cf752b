"""A disk that fills up, for real: a small file system of its own. Nothing good is lost, and the run goes on later."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from unittest.mock import patch

import pytest
from ranks import run_ranks
from test_resume import finish, start, weights_of
from tiny import pretrain_recipe

from rrcm_dist.distributed.world import join_world
from rrcm_dist.errors import RunFailure
from rrcm_dist.models.checkpoint_files import newest_undamaged
from rrcm_dist.training.checkpointing import checkpoints
from rrcm_dist.training.checkpointing.checkpoints import Progress, write_checkpoint
from rrcm_dist.training.checkpointing.resuming import contents_of
from rrcm_dist.training.checkpointing.saving import CheckpointWriter
from rrcm_dist.training.pretraining import prepare_pretraining

DISK_BYTES = 8 << 20
PAGE = 4096


@pytest.fixture
def small_disk(tmp_path):
    """An empty disk of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave_free(disk: Path, free_bytes: int) -> None:
    """Fill the disk with ballast until so much is left."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    space = shutil.disk_usage(disk).free - free_bytes // PAGE * PAGE
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, space)


def bytes_of(folder: Path) -> int:
    return sum(-(-file.stat().st_size // PAGE) * PAGE for file in folder.rglob("*") if file.is_file())


@pytest.mark.slow
def test_a_run_whose_disk_fills_up_ends_in_words_and_goes_on_to_the_same_bits(small_disk, digits, tmp_path):
    undisturbed, run = tmp_path / "undisturbed", small_disk / "run"
    finish(start(pretrain_recipe(digits, undisturbed, steps=6), tmp_path))
    finish(start(pretrain_recipe(digits, run, steps=6), tmp_path))
    checkpoint_bytes = bytes_of(run / "checkpoints" / "step-000000006")
    shutil.rmtree(run)
    leave_free(small_disk, checkpoint_bytes * 3 // 2)

    process = start(pretrain_recipe(digits, run, steps=6), tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "Traceback" not in output
    told = re.search(
        rf"a checkpoint needs [0-9.]+ kB in {run}/checkpoints, where [0-9.]+ kB are free: make room", output
    )
    assert told, output
    assert newest_undamaged(run / "checkpoints").name == "step-000000002"
    (small_disk / "ballast").unlink()
    assert "resuming from" in finish(start(pretrain_recipe(digits, run, steps=6), tmp_path))
    expected, found = weights_of(undisturbed), weights_of(run)
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)


def fill_up_in_the_middle(shards: Path, disk: Path):
    """What is told when the disk fills up at several places of a checkpoint; what is there afterwards is checked."""
    with join_world("cpu") as world:
        recipe = pretrain_recipe(shards, disk / "run")
        contents = after_a_step(recipe, world)
        folder = disk / "run" / "checkpoints"
        size = bytes_of(write_checkpoint(folder, contents, recipe, Progress(1, 24, 1, 1)))
        told = []
        for free_bytes in range(0, size, PAGE):
            # Another program takes the space just after the check for it.
            with (
                patch.object(checkpoints, "require_room", lambda *_, left=free_bytes: leave_free(disk, left)),
                pytest.raises((RunFailure, OSError)) as raised,
            ):
                write_checkpoint(folder, contents, recipe, Progress(2, 48, 1, 1))
            told.append(str(raised.value))
            assert not list(folder.glob(".step-*")), "what was begun takes the room that is missing"
            if (folder / "step-000000002").exists():
                break  # only the note for people was missing: the checkpoint itself is whole by then
            assert newest_undamaged(folder).name == "step-000000001"
        (disk / "ballast").unlink()
        write_checkpoint(folder, contents, recipe, Progress(2, 48, 1, 1))
        assert newest_undamaged(folder).name == "step-000000002"
        return told


def after_a_step(recipe, world):
    training = prepare_pretraining(recipe, world)
    training.step.backward(next(training.batches(0)), 0)
    training.step.engine.update(1e-3, None)
    return contents_of(training.step)


def test_wherever_the_disk_fills_up_the_checkpoint_before_stays_good(small_disk, digits):
    told = fill_up_in_the_middle(digits, small_disk)
    assert len(told) > 50
    for writer in ("online.safetensors was not written", "target.safetensors", "optimizer.safetensors"):
        assert any(writer in text for text in told), f"it never filled up in the middle of: {writer}"


def save_on_a_full_disk(shards: Path, disk: Path) -> str:
    """What this rank is told when the main rank's writing fails."""
    with join_world("cpu") as world:
        recipe = pretrain_recipe(shards, disk / "run")
        contents = after_a_step(recipe, world)
        writer = CheckpointWriter(disk / "run" / "checkpoints", recipe, world)
        writer.save(lambda: contents, Progress(1, 24, world.size, 1))
        with pytest.raises(RunFailure) as raised:
            writer.settle()
        return str(raised.value)


@pytest.mark.distributed
def test_every_rank_is_told_that_the_disk_is_full(small_disk, digits, tmp_path):
    leave_free(small_disk, 4 * PAGE)
    on_rank_0, on_rank_1 = run_ranks(save_on_a_full_disk, 2, tmp_path / "ranks", digits, small_disk)
    assert on_rank_0 == on_rank_1
    assert "a checkpoint needs" in on_rank_0
    assert "make room" in on_rank_0
