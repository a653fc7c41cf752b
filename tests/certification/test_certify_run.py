"""Certification as a whole: what is drawn, what is skipped, what survives a kill, and what the log says."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from certification_models import small

from rrcm_dist.certification.blocks import Block, Stage
from rrcm_dist.certification.images import images_of_tensor
from rrcm_dist.certification.ledger.merge import merge_ledgers
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.certification.plan import planned_blocks
from rrcm_dist.certification.run import certify
from rrcm_dist.certification.statistics.bounds import certified_radius, clopper_pearson_lower
from rrcm_dist.certification.status import describe_status, read_status
from rrcm_dist.certification.workers.counting import BlockNoise
from rrcm_dist.config.schema import CertifyConfig, SelectionConfig
from rrcm_dist.distributed.world import choose_device
from rrcm_dist.errors import InvalidInput, RunFailure

HERE = Path(__file__).parent
CPU = torch.device("cpu")
PIXELS = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8))
LABELS = [position % 10 for position in range(12)]


def recipe(output, function="small", sigmas=(0.25, 0.5), **changes):
    values = {
        "name": "test", "output": str(output), "data": "unused", "image_size": 8, "n0": 20, "n": 250, "block": 100,
        "device_batch": 64, "images": {"every": 4},
        "classifiers": [{"sigma": sigma, "function": f"certification_models:{function}"} for sigma in sigmas],
    }  # fmt: skip
    return CertifyConfig.model_validate(values | changes)


def run(config):
    return certify(config, CPU, images_of_tensor(PIXELS, LABELS, 10, config.images), show=False)


def stored_counts(output):
    """Every count of a ledger: (σ, image) → (selection, estimation)."""
    with LedgerReader(Path(output) / "ledger.sqlite") as reader:
        return {
            (c.sigma, image.image): (image.selection.tolist(), image.estimation.tolist())
            for c in reader.classifiers()
            for image in reader.counts(c.sigma)
        }


def test_the_last_block_of_a_stage_is_short():
    assert planned_blocks(n0=20, n=250, block=100) == (
        (Stage.SELECTION, 0, 20), (Stage.ESTIMATION, 0, 100), (Stage.ESTIMATION, 1, 100), (Stage.ESTIMATION, 2, 50),
    )  # fmt: skip


def test_certificates_are_those_of_the_plain_algorithm(tmp_path):
    result = run(recipe(tmp_path))
    classifier = small().eval()
    for level in result.levels:
        assert [c.image for c in level.certificates] == [0, 4, 8]
        for found in level.certificates:
            counts = {Stage.SELECTION: torch.zeros(10, dtype=int), Stage.ESTIMATION: torch.zeros(10, dtype=int)}
            for stage, number, draws in planned_blocks(20, 250, 100):
                block = Block(found.image, found.key, level.sigma, stage, number, draws)
                noise = BlockNoise(CPU, 0, block).draw(block.draws, PIXELS.shape[1:])
                with torch.no_grad():
                    logits = classifier(PIXELS[found.image].float() / 255 + level.sigma * noise)
                counts[block.stage] += torch.bincount(logits.argmax(1), minlength=10)
            chosen = int(counts[Stage.SELECTION].argmax())
            assert (found.candidate, found.successes, found.n) == (chosen, int(counts[Stage.ESTIMATION][chosen]), 250)
            assert found.p_lower == float(clopper_pearson_lower(found.successes, 250, 0.001))
            assert found.radius == float(certified_radius(found.p_lower, level.sigma))
            assert found.label == LABELS[found.image]


def test_counts_do_not_depend_on_the_device_batch(tmp_path):
    run(recipe(tmp_path / "a", device_batch=250))
    run(recipe(tmp_path / "b", device_batch=17))
    assert stored_counts(tmp_path / "a") == stored_counts(tmp_path / "b")


def test_more_draws_images_and_noise_levels_later_come_to_the_same_as_all_at_once(tmp_path):
    run(recipe(tmp_path / "grown", sigmas=(0.5,), n=250, images={"every": 6}))
    run(recipe(tmp_path / "grown", sigmas=(0.5,), n=400, images={"every": 6}))
    run(recipe(tmp_path / "grown", n=400, images={"every": 3}))
    run(recipe(tmp_path / "whole", n=400, images={"every": 3}))
    assert stored_counts(tmp_path / "grown") == stored_counts(tmp_path / "whole")
    assert len(stored_counts(tmp_path / "whole")) == 8


def test_a_finished_run_draws_nothing_again(tmp_path):
    first = run(recipe(tmp_path))
    before = (tmp_path / "ledger.sqlite").stat().st_mtime_ns, first.levels[0].log.read_bytes()
    start = time.perf_counter()
    again = run(recipe(tmp_path))
    assert again.levels == first.levels
    assert first.levels[0].log.read_bytes() == before[1]
    assert time.perf_counter() - start < 5


def test_the_log_has_the_standard_columns_first_and_radii_in_full(tmp_path):
    result = run(recipe(tmp_path, n=2000))
    for level in result.levels:
        with open(level.log) as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        header = level.log.read_text().split("\n")[0].split("\t")
        assert header[:6] == ["idx", "label", "predict", "radius", "correct", "time"]
        assert level.log.name == f"sigma_{level.sigma:g}.tsv"
        for row, c in zip(rows, level.certificates, strict=True):
            assert (int(row["idx"]), int(row["label"]), int(row["predict"])) == (c.image, c.label, c.prediction)
            assert (float(row["radius"]), float(row["p_lower"])) == (c.radius, c.p_lower)
            assert int(row["correct"]) == int(c.correct)
            assert (row["key"], int(row["successes"]), int(row["n"])) == (c.key, c.successes, 2000)
    assert any(c.radius > 0 for level in result.levels for c in level.certificates)


def test_classifiers_of_other_weights_are_refused(tmp_path):
    run(recipe(tmp_path))
    with pytest.raises(InvalidInput, match=r"another classifier at sigma 0\.25"):
        run(recipe(tmp_path, function="small_scaled"))


def test_another_seed_gives_other_counts_and_is_refused_in_the_same_ledger(tmp_path):
    run(recipe(tmp_path / "a"))
    run(recipe(tmp_path / "b", seed=1))
    assert stored_counts(tmp_path / "a") != stored_counts(tmp_path / "b")
    with pytest.raises(InvalidInput, match="seed 0 there, 1 here"):
        run(recipe(tmp_path / "a", seed=1))


CHILD = """
import sys
sys.path.insert(0, sys.argv[2])
import test_certify_run as t
t.run(t.recipe(sys.argv[1], function="slow", n=1000))
"""


def blocks_held(ledger):
    with LedgerReader(ledger) as reader:
        return reader._connection.execute("SELECT count(*) FROM blocks").fetchone()[0]


def test_a_run_killed_again_and_again_ends_with_the_counts_of_an_undisturbed_one(tmp_path):
    run(recipe(tmp_path / "whole", function="slow", n=1000))
    command = [sys.executable, "-c", CHILD, str(tmp_path / "killed"), str(HERE)]
    ledger, held = tmp_path / "killed" / "ledger.sqlite", [0]
    for more_blocks in (0, 1, 1, 10):
        child = subprocess.Popen(command, env={**os.environ, "SECONDS_PER_PASS": "0.04"})
        while not ledger.exists() or blocks_held(ledger) < held[-1] + more_blocks:
            assert child.poll() is None, "it must still be running when it is killed"
            time.sleep(0.01)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        held.append(blocks_held(ledger))
    assert held[1] < held[2] < held[3] < held[4] < 66
    subprocess.run(command, check=True, env={**os.environ, "SECONDS_PER_PASS": "0"})
    assert blocks_held(ledger) == 66
    assert stored_counts(tmp_path / "killed") == stored_counts(tmp_path / "whole")


def test_what_was_counted_before_a_failure_stays(tmp_path, monkeypatch):
    class FailsLater(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = small(), 0

        def forward(self, x):
            self.calls += 1
            return self.inner(x) * (float("nan") if self.calls > 12 else 1.0)

    monkeypatch.setattr("certification_models.slow", FailsLater)
    result = run(recipe(tmp_path, function="slow"))
    assert blocks_held(tmp_path / "ledger.sqlite") > 0
    given_up = {(level.sigma, failed.image): failed.reason for level in result.levels for failed in level.failed}
    certified = {(level.sigma, c.image) for level in result.levels for c in level.certificates}
    assert len(given_up) + len(certified) == 6
    assert given_up
    assert all("3 tries failed" in reason and "not finite" in reason for reason in given_up.values())
    for level in result.levels:
        rows = list(csv.DictReader(level.log.open(), delimiter="\t"))
        assert [row["idx"] for row in rows] == ["0", "4", "8"]
        failed = {str(image.image) for image in level.failed}
        assert {row["idx"] for row in rows if (row["predict"], row["radius"], row["n"]) == ("-1", "0.0", "0")} == failed
    monkeypatch.setattr("certification_models.slow", small)


def test_images_that_failed_are_tried_again_by_the_next_start(tmp_path):
    class FailsAtFirst(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.bad = small(), True

        def forward(self, x):
            return self.inner(x) * (float("nan") if self.bad and x[0, 0, 0, 0] > 0.5 else 1.0)

    network = FailsAtFirst()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("certification_models.slow", lambda: network)
        run(recipe(tmp_path, function="slow"))
        network.bad = False
        again = run(recipe(tmp_path, function="slow"))
    assert not any(level.failed for level in again.levels)
    run(recipe(tmp_path / "undisturbed"))
    assert stored_counts(tmp_path) == stored_counts(tmp_path / "undisturbed")


def test_a_classifier_that_fails_on_every_image_ends_the_run(tmp_path, monkeypatch):
    class Fails(torch.nn.Module):
        def forward(self, x):
            return torch.full((len(x), 10), float("nan"))

    monkeypatch.setattr("certification_models.slow", Fails)
    with pytest.raises(RunFailure, match=r"every image tried at sigma 0\.25 failed.*not finite"):
        run(recipe(tmp_path, function="slow"))


def test_images_are_every_kth_or_the_listed_ones():
    def chosen(**selection):
        return [i.image for i in images_of_tensor(PIXELS, LABELS, 10, SelectionConfig(**selection)).images]

    assert chosen() == list(range(12))
    assert chosen(every=5) == [0, 5, 10]
    assert chosen(start=1, every=5, count=2) == [1, 6]
    assert chosen(positions=(7, 2)) == [7, 2]


@pytest.mark.parametrize(("selection", "message"), [
    ({"start": 12}, "beyond the last of 12"), ({"positions": (3, 12)}, "has 12"),
])  # fmt: skip
def test_images_that_are_not_there_are_refused(selection, message):
    with pytest.raises(InvalidInput, match=message):
        images_of_tensor(PIXELS, LABELS, 10, SelectionConfig(**selection))


def test_a_label_outside_the_classes_is_refused_naming_the_image():
    with pytest.raises(RunFailure, match=r"image 9 \(9\) has label 9, and the dataset's 9 classes"):
        images_of_tensor(PIXELS, LABELS, 9, SelectionConfig())


def test_devices_are_chosen_by_name():
    assert choose_device("cpu") == CPU
    with pytest.raises(InvalidInput, match="auto, cpu or cuda"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(InvalidInput, match="torch sees no GPU"):
            choose_device("cuda")


def test_a_status_tells_every_noise_level_also_those_of_earlier_starts_and_of_merged_ledgers(tmp_path):
    run(recipe(tmp_path / "run", sigmas=(0.25,)))
    run(recipe(tmp_path / "run", sigmas=(0.5,)))
    status = read_status(tmp_path / "run")
    assert [(level["sigma"], level["decided"], level["images"]) for level in status.levels] == [
        (0.25, 3, 3),
        (0.5, 3, 3),
    ]
    run(recipe(tmp_path / "other", sigmas=(0.25, 0.5)))
    merge_ledgers(tmp_path / "all" / "ledger.sqlite", [tmp_path / name / "ledger.sqlite" for name in ("run", "other")])
    merged = describe_status(read_status(tmp_path / "all"))
    assert merged.splitlines()[2:4] == describe_status(status).splitlines()[2:4]


def test_an_audit_without_a_second_worker_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="an audit needs a second worker"):
        certify(recipe(tmp_path), CPU, show=False, audit_every=5)
