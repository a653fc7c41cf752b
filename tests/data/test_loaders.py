"""Loaders: the same pixels in the same global batches for any ranks and workers, from any step on."""

import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rrcm_dist.data import parts
from rrcm_dist.data.batches import Assembly, DecodeFailures, LabelledBatch, PretrainingBatch
from rrcm_dist.data.index import load_index
from rrcm_dist.data.loaders import evaluation_images, finetuning_loader, pretraining_loader
from rrcm_dist.errors import InvalidInput, RunFailure

STEPS = 6
"""One and a half epochs of four steps."""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART", 5)  # so that a batch of 12 is made of several parts


def same(one, other) -> None:
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


def joined(shares):
    """Ranks' shares of a batch in one."""
    assembly = Assembly(sum(len(share.rows) for share in shares))
    *_, whole = [assembly.add(share) for share in shares]
    return whole


@pytest.fixture
def whole_run(photo_index, order_of, pretrain_config) -> list[PretrainingBatch]:
    return list(pretraining_loader(photo_index, order_of(photo_index), pretrain_config(), 0, 1, 0, STEPS))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_ranks_and_workers_change_nothing(
    whole_run, photo_index, order_of, pretrain_config, world_size: int, workers: int
) -> None:
    config, order = pretrain_config(workers), order_of(photo_index)
    ranks = [pretraining_loader(photo_index, order, config, r, world_size, 0, STEPS) for r in range(world_size)]
    for step, shares in enumerate(zip(*ranks, strict=True)):
        same(joined(shares), whole_run[step])


@pytest.mark.parametrize("start", [1, 3, 5])
def test_resuming_delivers_what_would_have_come(whole_run, photo_index, order_of, pretrain_config, start: int) -> None:
    loader = pretraining_loader(photo_index, order_of(photo_index), pretrain_config(1), 0, 1, start, STEPS - start)
    for batch, expected in zip(loader, whole_run[start:], strict=True):
        same(batch, expected)


def test_batches_are_those_of_the_order_with_the_index_s_labels(whole_run, photo_index, order_of) -> None:
    for step, batch in enumerate(whole_run):
        ids = order_of(photo_index).global_batch(step)
        np.testing.assert_array_equal(batch.sample_ids.numpy(), ids)
        np.testing.assert_array_equal(batch.labels.numpy(), photo_index.label[ids])
        assert batch.keys == photo_index.keys[ids].tolist()
        assert batch.rows.tolist() == list(range(12))
        assert batch.plain.shape == batch.view_a.shape == batch.view_b.shape == (12, 3, 24, 24)
        assert batch.plain.dtype == torch.uint8
        assert batch.failures == 0


def test_views_are_drawn_anew_in_every_epoch_and_for_every_seed(
    whole_run, photo_index, order_of, pretrain_config
) -> None:
    ids = torch.cat([batch.sample_ids for batch in whole_run])
    views = torch.cat([batch.view_a for batch in whole_run])
    twice = next(i for i in ids.unique() if (ids == i).sum() == 2)
    first, second = views[ids == twice]
    assert not torch.equal(first, second)
    config = pretrain_config(seed=6)
    other = next(pretraining_loader(photo_index, order_of(photo_index), config, 0, 1, 0, 1))
    assert torch.equal(other.sample_ids, whole_run[0].sample_ids)
    assert not torch.equal(other.view_a, whole_run[0].view_a)


@pytest.mark.parametrize("kind", ["weak", "strong", "randaugment"])
def test_finetuning_batches_do_not_depend_on_ranks_workers_or_start(
    photo_index, order_of, finetune_config, kind: str
) -> None:
    order = order_of(photo_index)
    whole = list(finetuning_loader(photo_index, order, finetune_config(kind), 0, 1, 0, 4))
    shares = [list(finetuning_loader(photo_index, order, finetune_config(kind, 2), r, 3, 2, 2)) for r in range(3)]
    for step in (2, 3):
        same(joined([share[step - 2] for share in shares]), whole[step])
    assert isinstance(whole[0], LabelledBatch)
    assert whole[0].images.dtype == torch.uint8


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_images_come_in_the_order_asked_for(photo_index, workers: int) -> None:
    asked = [7, 3, 52, 0, *range(10, 50), *range(10, 50)]
    batches = list(evaluation_images(photo_index, 16, asked, workers))
    assert torch.cat([batch.sample_ids for batch in batches]).tolist() == asked
    assert torch.cat([batch.rows for batch in batches]).tolist() == list(range(len(asked)))
    images = torch.cat([batch.images for batch in batches])
    assert images.shape == (84, 3, 16, 16)
    assert torch.equal(images[4:44], images[44:])


def test_the_process_wide_random_state_is_left_alone(photo_index, order_of, finetune_config) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(finetuning_loader(photo_index, order_of(photo_index), finetune_config("randaugment", 1), 0, 1, 0, 1))
    list(finetuning_loader(photo_index, order_of(photo_index), finetune_config("randaugment", 0), 0, 1, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_before, np.random.get_state()[1])


def test_ranks_that_cannot_share_the_streams_are_told_at_once(photo_index, order_of, pretrain_config) -> None:
    with pytest.raises(InvalidInput, match="1, 2, 3, 4, 6, 12 ranks"):
        pretraining_loader(photo_index, order_of(photo_index), pretrain_config(), 0, 5, 0, 1)


@pytest.fixture
def damaged(photo_folder: Path, tmp_path: Path) -> Path:
    """The dataset with one byte of sample 20 turned over."""
    folder = Path(shutil.copytree(photo_folder, tmp_path / "damaged"))
    index = load_index(folder)
    with open(folder / index.shards[index.shard_of[20]].name, "r+b") as shard:
        shard.seek(int(index.offset[20]) + int(index.length[20]) // 2)
        byte = shard.read(1)[0]
        shard.seek(-1, os.SEEK_CUR)
        shard.write(bytes([byte ^ 0xFF]))
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_sample_is_replaced_the_same_way_everywhere_and_counted(
    damaged: Path, order_of, pretrain_config, caplog, workers: int
) -> None:
    index = load_index(damaged)
    order, plain = order_of(index), pretrain_config()
    with caplog.at_level(logging.WARNING):
        whole = list(pretraining_loader(index, order, pretrain_config(workers), 0, 1, 0, 4))
    step, row = next((s, r) for s in range(4) for r in range(12) if order.global_batch(s)[r] == 20)
    assert [batch.failures for batch in whole] == [int(s == step) for s in range(4)]
    assert whole[step].sample_ids[row] == 21
    assert whole[step].keys[row] == index.keys[21]
    assert str(index.keys[20]) in caplog.text
    halves = [next(pretraining_loader(index, order, plain, rank, 2, step, 1)) for rank in range(2)]
    same(joined(halves), whole[step])


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_marks_what_cannot_be_decoded_where_that_is_allowed(damaged: Path, caplog, workers: int) -> None:
    index = load_index(damaged)
    with caplog.at_level(logging.WARNING):
        batches = list(evaluation_images(index, 16, range(53), workers, allow_unreadable=True))
    ids = torch.cat([batch.sample_ids for batch in batches])
    images = torch.cat([batch.images for batch in batches])
    expected = torch.arange(53)
    expected[20] = parts.UNREADABLE
    assert torch.equal(ids, expected)
    assert images[20].sum() == 0
    assert str(index.keys[20]) in caplog.text
    assert sum(batch.failures for batch in batches) == 1


def test_evaluation_never_replaces_a_sample(damaged: Path) -> None:
    index = load_index(damaged)
    with pytest.raises(RunFailure, match=str(index.keys[20])):
        list(evaluation_images(index, 16, range(53)))
    list(evaluation_images(index, 16, range(20)))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_missing_or_short_shard_stops_the_run_and_is_named(
    photo_folder: Path, tmp_path: Path, order_of, pretrain_config, workers: int, damage: str
) -> None:
    folder = Path(shutil.copytree(photo_folder, tmp_path / "gone"))
    index = load_index(folder)
    shard = folder / index.shards[2].name
    if damage == "missing":
        shard.unlink()
    else:
        os.truncate(shard, 3000)
    with pytest.raises(RunFailure, match=index.shards[2].name):
        list(pretraining_loader(index, order_of(index), pretrain_config(workers), 0, 1, 0, 4))


def test_where_nothing_can_be_decoded_the_run_stops(photo_index, order_of, pretrain_config) -> None:
    index = replace(photo_index, crc32=photo_index.crc32 ^ 1)
    with pytest.raises(RunFailure, match="nor could the 16 after it"):
        list(pretraining_loader(index, order_of(index), pretrain_config(), 0, 1, 0, 1))


def test_memory_is_pinned_where_training_asks_for_it_and_only_there(
    photo_index, order_of, pretrain_config, monkeypatch
) -> None:
    pinned = []

    def empty(*shape, pin_memory=False, **options):
        pinned.append(pin_memory)
        return torch.zeros(*shape, **options)

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    next(pretraining_loader(photo_index, order_of(photo_index), pretrain_config(), 0, 1, 0, 1))
    assert not any(pinned)
    pinned.clear()
    next(pretraining_loader(photo_index, order_of(photo_index), pretrain_config(), 0, 1, 0, 1, pin_memory=True))
    assert sum(pinned) == 6  # three views, labels, sample ids and crops


def _counted(samples: int, failures: int) -> LabelledBatch:
    ids = torch.arange(samples)
    return LabelledBatch(torch.empty(samples, 0), ids, ids, [], ids, failures)


def test_too_many_failures_are_told_once_enough_was_read() -> None:
    failures = DecodeFailures(0.01)
    for _ in range(9):
        failures.update(_counted(100, 5))
        assert failures.problem() == ""
    failures.update(_counted(100, 5))
    assert "50 of 1000 samples" in failures.problem()
    assert failures.failed == 50
    failures.update(_counted(9000, 0))
    assert "50 of 1000 samples" in failures.problem()  # ranks may ask a step later


def test_as_many_failures_as_are_allowed_are_no_problem() -> None:
    failures = DecodeFailures(0.01)
    assert failures.problem() == ""
    for _ in range(50):
        failures.update(_counted(100, 1))
    assert failures.problem() == ""


def test_where_everything_failed_few_samples_are_enough() -> None:
    failures = DecodeFailures(0.5)
    failures.update(_counted(8, 8))
    assert "8 of 8" in failures.problem()


def test_signals_that_ask_a_run_to_stop_leave_its_workers_working(photo_index, order_of, pretrain_config) -> None:
    batches = pretraining_loader(photo_index, order_of(photo_index), pretrain_config(2), 0, 1, 0, 40)
    next(batches), next(batches)  # workers take turns: both have begun
    workers = [str(worker.pid) for worker in multiprocessing.active_children()]
    for name in ("TERM", "INT", "USR1", "USR2"):
        subprocess.run(["kill", f"-{name}", *workers], check=True)
    assert len(list(batches)) == 38


def test_threads_that_libraries_begin_at_the_fork_leave_sigterm_to_the_one_that_waits_for_it(
    photo_index, order_of, pretrain_config
) -> None:
    beginning = [True]
    sleeper = threading.Event()
    os.register_at_fork(after_in_child=lambda: beginning and threading.Thread(target=sleeper.wait, daemon=True).start())
    batches = pretraining_loader(photo_index, order_of(photo_index), pretrain_config(2), 0, 1, 0, 40)
    next(batches), next(batches)
    beginning.clear()
    takers = [_threads_that_take_sigterm(worker.pid) for worker in multiprocessing.active_children()]
    batches.close()
    assert takers == [1, 1]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _threads_that_take_sigterm(pid: int | None) -> int:
    held = [
        (task / "status").read_text().split("SigBlk:")[1].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()
    ]
    return sum(not int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in held)


def _stuck(*_) -> None:
    time.sleep(3600)


@pytest.mark.slow
def test_a_stuck_worker_is_ended_with_the_run(photo_index) -> None:
    maker = parts.PartMaker(photo_index, _stuck, lambda samples, labels: labels, seed=0)
    made = parts.batches(maker, [parts.PartRequest(0, 0, np.arange(2), 2)] * 9, workers=2, parts_ready=2)
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        next(made)
    made.close()
    deadline = time.monotonic() + 20
    while (multiprocessing.active_children() or making_ahead()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not multiprocessing.active_children()
    assert not making_ahead()


def making_ahead() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "made-ahead"]


def test_a_loader_given_up_midway_leaves_neither_process_nor_thread(photo_index, order_of, pretrain_config) -> None:
    batches = pretraining_loader(photo_index, order_of(photo_index), pretrain_config(2), 0, 1, 0, 10**6)
    next(batches)
    assert len(making_ahead()) == 1
    batches.close()
    assert not making_ahead()
    assert not multiprocessing.active_children()


def test_what_a_worker_holds_does_not_grow_with_what_it_has_read(photo_index, order_of, pretrain_config) -> None:
    batches = pretraining_loader(photo_index, order_of(photo_index), pretrain_config(1), 0, 1, 0, 160)
    held = []
    for step, _ in enumerate(batches):
        if step in (30, 150):
            (worker,) = multiprocessing.active_children()
            held.append(_private_mib(worker.pid))
    assert held[1] < held[0] + 4
    assert held[1] < 150  # pages of its own, not shared with the training process


def _private_mib(pid: int | None) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def test_a_killed_worker_is_told_with_the_likely_cause(photo_index, order_of, pretrain_config) -> None:
    batches = pretraining_loader(photo_index, order_of(photo_index), pretrain_config(2), 0, 1, 0, 10**6)
    next(batches)
    worker = multiprocessing.active_children()[0].pid
    threading.Timer(0.5, os.kill, (worker, signal.SIGKILL)).start()
    with pytest.raises(RunFailure, match="memory or /dev/shm ran out"):
        for _ in batches:
            pass


ENDLESS = """
import sys, time
from conftest import make_order, PARTS
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.index import load_index
from rrcm_dist.data.loaders import pretraining_loader
index = load_index(sys.argv[1])
data = {"train": "x", "streams": 12, "workers": 2}
config = PretrainConfig.model_validate({**PARTS, "projector": {"hidden": 8}, "data": data})
try:
    for batch in pretraining_loader(index, make_order(index), config, 0, 1, 0, 10**6):
        print("batch", flush=True)
        time.sleep(0.05)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_ctrl_c_ends_workers_quietly_and_quickly(photo_folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(photo_folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "batch\n"
    os.killpg(process.pid, signal.SIGINT)
    start = time.monotonic()
    output, complaints = process.communicate(timeout=30)
    assert output.splitlines()[-1] == "stopped"
    assert complaints == ""
    assert process.returncode == 0
    assert time.monotonic() - start < 10
