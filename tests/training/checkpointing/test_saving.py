"""The thread that writes checkpoints: what befalls it is told, and signals that come meanwhile cost nothing."""

import os
import signal
import threading
from unittest.mock import patch

import pytest
from tiny import finetune_recipe

from rrcm_dist.distributed.world import join_world
from rrcm_dist.errors import RunFailure
from rrcm_dist.training.checkpointing import saving
from rrcm_dist.training.checkpointing.checkpoints import Contents, Progress
from rrcm_dist.training.checkpointing.saving import CheckpointWriter
from rrcm_dist.training.finetuning import prepare_finetuning
from rrcm_dist.training.loop import train

WRITE = saving.write_checkpoint


def test_a_writer_that_ends_by_an_unforeseen_error_does_not_pass_for_one_that_has_written(tmp_path):
    def fail(*_):
        raise ValueError("of a kind that nobody expects")

    with join_world("cpu") as world, patch.object(saving, "write_checkpoint", fail):
        writer = CheckpointWriter(tmp_path, finetune_recipe(tmp_path, tmp_path), world)
        writer.save(lambda: Contents({}, {}), Progress(1, 24, 1, 1))
        with pytest.raises(RunFailure, match=r"not written \(ValueError: of a kind"):
            writer.settle()


def test_training_does_not_wait_for_a_slow_second_place_until_it_ends(tmp_path):
    released, kept = threading.Event(), []

    class SlowMirror:
        def keep(self, checkpoint):
            assert released.wait(30)
            kept.append(checkpoint)

    def write(folder, _, recipe, progress):
        return folder / f"step-{progress.step}"

    with join_world("cpu") as world, patch.object(saving, "write_checkpoint", write):
        writer = CheckpointWriter(tmp_path, finetune_recipe(tmp_path, tmp_path), world, SlowMirror())
        for step in (1, 2, 3):
            writer.save(lambda: Contents({}, {}), Progress(step, 24, 1, 1))
        writer.settle()
        assert not kept
        released.set()
        writer.finish()
    assert [path.name for path in kept] == ["step-1", "step-2", "step-3"]


def test_a_sigterm_while_the_last_checkpoint_is_written_does_not_reach_what_was_there_before(digits, tmp_path):
    """Where nobody had asked for it, it would end the process in the middle of the write."""
    got_through: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got_through.append(number))

    def write_slowly(*arguments):
        if arguments[3].finished:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(0.3)
        return WRITE(*arguments)

    recipe = finetune_recipe(digits, tmp_path / "run", steps=2)
    try:
        with join_world("cpu") as world, patch.object(saving, "write_checkpoint", write_slowly):
            outcome = train(prepare_finetuning(recipe, world), world)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not got_through
    assert (outcome.checkpoint / "manifest.json").exists()
