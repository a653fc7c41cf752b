"""What the metrics say of speed, waits and memory is what a step was made to take."""

import json
import logging
import time
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from tiny import pretrain_recipe

from rrcm_dist.config.estimate import step_flops
from rrcm_dist.config.gpus import GPUS
from rrcm_dist.distributed.waiting import GATHERS
from rrcm_dist.distributed.world import World, join_world
from rrcm_dist.training.loop import train
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.watching import utilisation
from rrcm_dist.training.watching.metrics import MEASURED, Metrics
from rrcm_dist.training.watching.utilisation import DevicePeak, device_peak, memory
from rrcm_dist.training.work import Work

CPU = torch.device("cpu")
PEAK = DevicePeak(1e9, "a test")


class Lines:
    """Takes the place of a run folder."""

    path = Path("unused")

    def __init__(self) -> None:
        self.lines: list[dict] = []

    def log(self, values: dict) -> None:
        self.lines.append(values)


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def batches(self, count: int, seconds: float):
        """Batches of which each takes so long to come."""
        for number in range(count):
            self.now += seconds
            yield number


@pytest.fixture
def clock(monkeypatch):
    passing = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: passing.now)
    return passing


def logged(recipe, clock, peak=PEAK, ranks=1) -> tuple[dict, str]:
    """Four steps: a quarter of a second for the batch, a whole one for the rest, and five aside."""
    lines = Lines()
    metrics = Metrics(recipe, lines, World(0, ranks, 0, CPU), peak, Work(step_flops(recipe)))  # type: ignore[arg-type]
    for number in metrics.timed(clock.batches(4, 0.25)):
        clock.now += 1.0
        metrics.add({"loss": torch.tensor(float(number))})
        if number == 2:
            with metrics.aside():
                clock.now += 5.0
    note = metrics.log_steps(4, lr=0.1, decode_failures=None)
    return lines.lines[0], note


def test_speed_and_shares_are_of_the_steps_alone(clock, tmp_path):
    recipe = pretrain_recipe(tmp_path, tmp_path)
    line, note = logged(recipe, clock)
    assert line["loss"] == 1.5
    assert line["images_per_second"] == round(4 * 24 / 5.0, 1), "evaluation's five seconds aside"
    assert line["data_wait_share"] == pytest.approx(1.0 / 5.0)
    assert line["mfu"] == pytest.approx(4 * step_flops(recipe) / (5.0 * 1e9), rel=1e-3, abs=1e-4)
    assert line["gather_share"] < 0.01
    assert line["memory_peak_gb"] >= line["memory_gb"] > 0
    assert "decode_failures" not in line
    assert "19 images/s" in note
    assert "data 20%" in note


def test_mfu_is_of_all_ranks_and_absent_where_the_peak_is_unknown(clock, tmp_path):
    recipe = pretrain_recipe(tmp_path, tmp_path)
    alone, _ = logged(recipe, clock)
    of_two, _ = logged(recipe, clock, ranks=2)
    unknown, note = logged(recipe, clock, peak=DevicePeak(None, "not known"))
    assert of_two["mfu"] == pytest.approx(alone["mfu"] / 2, abs=1e-4)
    assert "mfu" not in unknown
    assert "MFU" not in note


def lines_of_this_rank(folder: Path) -> list[dict]:
    """Rank 1 waits for data and for gathers, rank 0 for nothing; their losses are 1 and 3."""
    with join_world("cpu") as world:
        lines = Lines()
        metrics = Metrics(pretrain_recipe(folder, folder), lines, world, PEAK, Work(1e9))
        slow = world.rank == 1

        def batches():
            time.sleep(0.2 if slow else 0)
            yield None

        for _ in metrics.timed(batches()):
            with GATHERS.timed(world.device):
                time.sleep(0.2 if slow else 0)
            time.sleep(0.1)
            metrics.add({"loss": torch.tensor(3.0 if slow else 1.0)})
        metrics.log_steps(1)
        return lines.lines


@pytest.mark.distributed
def test_the_main_rank_tells_of_all_ranks(tmp_path):
    (line,), nothing = run_ranks(lines_of_this_rank, 2, tmp_path / "ranks", tmp_path)
    assert nothing == []
    seconds = 24 / line["images_per_second"]
    assert line["loss"] == 2.0
    assert line["data_wait_share"] * seconds == pytest.approx(0.2, abs=0.05), "the rank that waits longest holds all up"
    assert line["gather_share"] * seconds == pytest.approx(0.1, abs=0.05), "the mean"


def test_the_recipe_s_peak_goes_before_all(tmp_path):
    training = pretrain_recipe(tmp_path, tmp_path, device_tflops=3.5).training
    assert device_peak(training, CPU) == DevicePeak(3.5e12, "training.device_tflops")


def test_a_cpu_s_peak_is_measured_at_the_run_s_precision_and_threads(tmp_path):
    training = pretrain_recipe(tmp_path, tmp_path).training
    peak = device_peak(training, CPU)
    assert peak.flops is not None
    assert 1e8 < peak.flops < 1e14
    assert "fp32" in peak.source
    assert f"{torch.get_num_threads()} thread" in peak.source


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA A800-SXM4-80GB", "A800"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA RTX A6000", "A6000"),
    ],
)
def test_a_gpu_s_peak_is_the_published_one_of_its_kind(name, kind, monkeypatch, tmp_path):
    monkeypatch.setattr(utilisation.torch.cuda, "get_device_name", lambda device: name)
    for precision, tflops in (("bf16", GPUS[kind].half_tflops), ("fp32", GPUS[kind].single_tflops)):
        training = pretrain_recipe(tmp_path, tmp_path, precision=precision).training
        assert device_peak(training, torch.device("cuda", 0)).flops == tflops * 1e12


def test_a_gpu_of_no_known_kind_is_told_and_has_no_peak(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(utilisation.torch.cuda, "get_device_name", lambda device: "NVIDIA A10G")
    with caplog.at_level(logging.WARNING):
        assert device_peak(pretrain_recipe(tmp_path, tmp_path).training, torch.device("cuda", 0)).flops is None
    assert "training.device_tflops" in caplog.text


def test_memory_follows_what_the_process_holds():
    before = memory(CPU)
    held = torch.ones(50_000_000)  # 0.2 GB
    during = memory(CPU)
    del held
    after = memory(CPU)
    assert during["memory_gb"] - before["memory_gb"] == pytest.approx(0.2, abs=0.03)
    assert during["memory_gb"] - after["memory_gb"] == pytest.approx(0.2, abs=0.03)
    assert after["memory_peak_gb"] >= during["memory_gb"] - 0.01


def test_a_run_tells_them_at_every_log_and_what_the_peak_was_taken_from(digits, tmp_path):
    recipe = pretrain_recipe(digits, tmp_path / "run", steps=4, log_every=2, checkpoint_every=100)
    with join_world("cpu") as world:
        train(prepare_pretraining(recipe, world), world)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [2, 4]
    assert all({*MEASURED, "gradient_norm", "lr"} <= line.keys() for line in steps)
    assert all(0 < line["mfu"] <= 1 and 0 <= line["data_wait_share"] <= 1 for line in steps)
    (start,) = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert start["device_tflops"] > 0
    assert "matrix product" in start["device_tflops_source"]
