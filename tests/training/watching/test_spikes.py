"""A loss far above those before it is written down with its samples, and stops the run where that is wished."""

import json
import logging
import random
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from tiny import pretrain_recipe

from rrcm_dist.distributed.world import join_world
from rrcm_dist.errors import RunFailure
from rrcm_dist.training.loop import train
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.watching import spikes as spikes_module
from rrcm_dist.training.watching.guard import Guard
from rrcm_dist.training.watching.spikes import FEWEST, WINDOW, SpikeDetector, SpikeWatch


def spikes_of(losses: list[float], threshold: float = 8.0) -> list[int]:
    """Which of the losses are called spikes."""
    detector = SpikeDetector(threshold)
    return [step for step, loss in enumerate(losses) if detector.look(loss)]


def around(level: float, steps: int, seed: int = 0) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(level, 0.1) for _ in range(steps)]


def test_only_the_loss_that_stands_out_is_a_spike():
    losses = around(5.0, 300)
    losses[150] = 6.5
    assert spikes_of(losses) == [150]
    losses[150] = 3.5
    assert spikes_of(losses) == [], "a loss that falls harms nobody"


def test_a_loss_of_two_kinds_of_steps_is_none():
    """As where a drawn noise level decides most of the loss: a tenth of the steps lie 15 deviations above others."""
    generator = random.Random(1)
    losses = [generator.gauss(3.0 if generator.random() < 0.1 else 1.5, 0.1) for _ in range(5000)]
    assert spikes_of(losses) == []
    losses[3000] = 8.0
    assert spikes_of(losses) == [3000]


def test_nothing_is_a_spike_before_there_is_enough_to_compare_with():
    assert spikes_of([*around(5.0, FEWEST - 1), 50.0, *around(5.0, 3)]) == []
    assert spikes_of([*around(5.0, FEWEST), 50.0]) == [FEWEST]


def test_a_loss_that_stays_high_is_soon_the_usual_one():
    losses = [*around(5.0, WINDOW), *around(8.0, 2 * WINDOW)]
    found = spikes_of(losses)
    assert found[0] == WINDOW
    assert len(found) < 10


def test_losses_that_hardly_differ_make_no_spike_of_a_small_change():
    assert spikes_of([2.0] * 60 + [2.001]) == []
    assert spikes_of([2.0] * 60 + [2.1]) == [60]


def watch_of(folder: Path, **training) -> SpikeWatch:
    recipe = pretrain_recipe(folder, folder, **training)
    return SpikeWatch(recipe.training, folder, True, lambda step: {"noise_index": step % 7})


def test_every_spike_is_written_down_and_one_a_minute_is_told(tmp_path, monkeypatch, caplog):
    now = 1000.0
    monkeypatch.setattr(spikes_module.time, "monotonic", lambda: now)
    watch = watch_of(tmp_path)
    with caplog.at_level(logging.WARNING):
        for step, loss in enumerate(around(5.0, WINDOW)):
            watch.look(step, loss, ["a", "b"])
        for step in (WINDOW, WINDOW + 1, WINDOW + 2):
            watch.look(step, 50.0, ["spiky", "spikier"])
            now += 25
        watch.look(WINDOW + 3, 90.0, ["late"])
    lines = [json.loads(line) for line in (tmp_path / "loss-spikes.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [WINDOW, WINDOW + 1, WINDOW + 2, WINDOW + 3]
    assert lines[0]["keys"] == {"rank 0": ["spiky", "spikier"]}
    assert (lines[0]["loss"], lines[0]["noise_index"]) == (50.0, WINDOW % 7)
    assert abs(lines[0]["median"] - 5.0) < 0.1
    assert 0.05 < lines[0]["deviation"] < 0.2
    first, last = caplog.messages
    assert f"the loss at step {WINDOW}, 50, is" in first
    assert "loss-spikes.jsonl" in first
    assert f"the loss at step {WINDOW + 3}, 90, is" in last
    assert "(and 2 more before it)" in last


def test_null_looks_for_no_spikes(tmp_path):
    watch = watch_of(tmp_path, spike=None, stop_at_spike=True)
    for step, loss in enumerate([*around(5.0, 60), 1e9]):
        watch.look(step, loss, ["a"])
    assert not (tmp_path / "loss-spikes.jsonl").exists()


def spike_on_one_of_two_ranks(folder: Path) -> list[str]:
    """What this rank hears: rank 1's loss alone stands out, and so does their mean."""
    with join_world("cpu") as world:
        recipe = pretrain_recipe(folder, folder, stop_at_spike=True)
        watch = SpikeWatch(recipe.training, folder, world.is_main, lambda step: {})
        guard, heard = Guard(world, folder, watch), []
        for step, loss in enumerate([*around(5.0, 60, seed=world.rank), 40.0 if world.rank else 5.0]):
            try:
                guard.watch(step, [torch.tensor(loss)], [f"class/{world.rank}-{step}"])
            except RunFailure as error:
                heard.append(str(error))
        return heard


@pytest.mark.distributed
def test_every_rank_stops_at_the_spike_of_one(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    first, second = run_ranks(spike_on_one_of_two_ranks, 2, tmp_path / "ranks", run)
    assert first == second
    (told,) = first
    assert "the loss at step 60, 22.5, is " in told
    assert "training.stop_at_spike=false" in told
    (line,) = (run / "loss-spikes.jsonl").read_text().splitlines()
    assert json.loads(line)["keys"] == {"rank 0": ["class/0-60"], "rank 1": ["class/1-60"]}


def test_a_run_stopped_at_a_spike_keeps_the_checkpoints_from_before_and_goes_on(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(spikes_module, "FEWEST", 10)
    recipe = pretrain_recipe(digits, tmp_path / "run", steps=18, checkpoint_every=8, log_every=18, stop_at_spike=True)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"held_out": None})})
    with join_world("cpu") as world:
        with pytest.raises(RunFailure, match="the loss at step 14") as raised:
            train(spiking(prepare_pretraining(recipe, world), at=14), world)
        assert "checkpoints from before are good" in str(raised.value)
        (line,) = (tmp_path / "run" / "loss-spikes.jsonl").read_text().splitlines()
        told = json.loads(line)
        assert len(told["keys"]["rank 0"]) == 24
        assert {"noise_index", "noisier_t", "less_noisy_t"} <= told.keys()
        outcome = train(prepare_pretraining(recipe, world), world)
    assert outcome.step == 18
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert [start["start_step"] for start in environment] == [0, 8]


def spiking(training, at: int):
    """The same training, whose loss at one step is told a hundred times too high."""
    backward = training.step.backward

    def with_spike(batch, step):
        parts = backward(batch, step)
        return {**parts, "loss": parts["loss"] * 100} if step == at else parts

    training.step.backward = with_spike
    return training
