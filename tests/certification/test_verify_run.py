"""ℓ∞ verification as a whole: the same rows whoever computes them, a ledger of its own, contradictions found."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from verifiable_networks import dropping, small

from rrcm_dist.certification.images import images_of_tensor
from rrcm_dist.certification.ledger.merge import merge_ledgers
from rrcm_dist.certification.ledger.merge_verifications import merge_verifications
from rrcm_dist.certification.ledger.verification import StoredVerification, VerificationReader
from rrcm_dist.certification.on_ray.actor import WorkerActor
from rrcm_dist.certification.on_ray.pool import RayPool
from rrcm_dist.certification.run import certify
from rrcm_dist.certification.verification import run as verification
from rrcm_dist.certification.verification import worker as workers
from rrcm_dist.certification.verification.on_ray import VerificationSetup
from rrcm_dist.certification.verification.worker import VerificationRules, VerificationWorker
from rrcm_dist.certification.workers.classifiers import weights_hash
from rrcm_dist.config.schema import CertifyConfig
from rrcm_dist.config.verify import AttackConfig, VerifyConfig
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.interval.verification import verified_margins

HERE = Path(__file__).parent
EPSILONS = (0.0, 0.002, 0.05)
PIXELS = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8))
LABELS = small().eval()(PIXELS / 255).argmax(dim=1).tolist()
WRONG = 3
LABELS[WRONG] = (LABELS[WRONG] + 1) % 10


def recipe(output, **changes):
    values = {
        "name": "squares", "output": str(output), "function": "verifiable_networks:small", "data": "unused",
        "image_size": 8, "epsilons": EPSILONS, "attack": {"steps": 5, "restarts": 2},
    }  # fmt: skip
    return VerifyConfig.model_validate(values | changes)


def verify(config, pool=None):
    images = images_of_tensor(PIXELS, LABELS, 10, config.images)
    return verification.verify(config, images=images, show=False, pool=pool)


def stored(output):
    """Every row of the ledger, apart from who computed it and how long that took."""
    with sqlite3.connect(output / "ledger.sqlite") as connection:
        query = (
            "SELECT epsilons.epsilon, image, prediction, margin, attack FROM verifications "
            "JOIN epsilons ON epsilons.id = verifications.epsilon ORDER BY epsilons.epsilon, image"
        )
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The ledger of one process at one go."""
    output = tmp_path_factory.mktemp("whole")
    verify(recipe(output))
    return output


def test_margins_are_those_of_the_bounds_and_the_attack_stays_above_them(whole):
    rows = stored(whole)
    assert len(rows) == 3 * 12
    network = small().eval()
    for epsilon in EPSILONS:
        margins = verified_margins(network, PIXELS / 255, torch.tensor(LABELS), epsilon)
        here = [row for row in rows if row[0] == epsilon]
        assert [row[3] for row in here] == pytest.approx(margins.tolist(), abs=1e-6)
        assert all(attack >= margin - 1e-6 for *_, margin, attack in here)
    verified = {epsilon: sum(row[3] > 0 for row in rows if row[0] == epsilon) for epsilon in EPSILONS}
    assert verified == {0.0: 11, 0.002: 11, 0.05: 0}  # all but the wrong one, all but the wrong one, none


def test_a_network_in_training_mode_is_verified_in_evaluation_mode(whole, tmp_path):
    verify(recipe(tmp_path, function="verifiable_networks:dropping", epsilons=(0.0, 0.002)))
    assert stored(tmp_path) == [row for row in stored(whole) if row[0] < 0.05]
    rules = VerificationRules(0, AttackConfig(steps=1, restarts=1), 8)
    VerificationWorker(dropping(), 3, "dropping", rules, torch.device("cpu"))


def test_errors_of_the_three_kinds_are_told_apart(whole):
    with VerificationReader(whole / "ledger.sqlite") as reader:
        images = reader.verified(0.05)
    assert [image.image for image in images if image.clean_error] == [WRONG]
    assert sum(image.pgd_error for image in images) <= sum(not image.verified for image in images)
    assert not any(image.contradicts for image in images)


def test_a_run_in_parts_and_in_another_order_ends_with_the_same_rows(whole, tmp_path):
    verify(recipe(tmp_path, images={"positions": [7, 2, 9]}, epsilons=(0.05,)))
    assert len(stored(tmp_path)) == 3
    verify(recipe(tmp_path, epsilons=EPSILONS[::-1], device_batch=3))
    assert stored(tmp_path) == stored(whole)


def test_the_attack_follows_the_seed_and_bounds_do_not(whole, tmp_path):
    verify(recipe(tmp_path, seed=1))
    rows, others = stored(whole), stored(tmp_path)
    assert [row[:4] for row in rows] == [row[:4] for row in others]
    assert [row[4] for row in rows] != [row[4] for row in others]


def test_without_restarts_the_clean_image_alone_is_looked_at(tmp_path):
    verify(recipe(tmp_path, attack={"steps": 5, "restarts": 0}, epsilons=(0.0, 0.05)))
    rows = stored(tmp_path)
    assert [row[4] for row in rows[:12]] == [row[4] for row in rows[12:]]


@pytest.mark.parametrize("size", [5, 16])
def test_passes_of_one_shape_are_filled_up_and_give_the_same_answers(whole, tmp_path, monkeypatch, size):
    """As on CUDA, here on CPU, where another shape rounds a little differently."""
    shapes = set()

    def watched(network, images, *rest):
        shapes.add(len(images))
        return verified_margins(network, images, *rest)

    monkeypatch.setattr(workers, "verified_margins", watched)
    monkeypatch.setattr(workers, "images_per_pass", lambda *rules: size)
    monkeypatch.setattr(verification, "images_per_pass", lambda *rules: size)
    verify(recipe(tmp_path))
    assert shapes == {size}
    assert [row[:3] for row in stored(tmp_path)] == [row[:3] for row in stored(whole)]
    for place in (3, 4):
        values, expected = ([row[place] for row in stored(output)] for output in (tmp_path, whole))
        assert values == pytest.approx(expected, abs=1e-5)


def test_where_a_pass_of_several_fails_the_image_to_blame_is_found(whole, tmp_path, monkeypatch):
    def failing(network, images, labels, epsilon):
        if any(torch.equal(image, PIXELS[8] / 255) for image in images):
            raise RuntimeError("a bad image")
        return verified_margins(network, images, labels, epsilon)

    monkeypatch.setattr(workers, "verified_margins", failing)
    monkeypatch.setattr(workers, "images_per_pass", lambda *rules: 5)
    monkeypatch.setattr(verification, "images_per_pass", lambda *rules: 5)
    result = verify(recipe(tmp_path, epsilons=(0.0, 0.002)))
    assert [[failed.image for failed in level.failed] for level in result.epsilons] == [[8], [8]]
    assert [row[:2] for row in stored(tmp_path)] == [row[:2] for row in stored(whole) if row[0] < 0.05 and row[1] != 8]


@pytest.mark.slow
@pytest.mark.distributed
def test_two_ray_workers_end_with_the_rows_of_one_process(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(HERE)  # where workers, too, look for modules
    verify(recipe(tmp_path), RayPool(workers=2, device="cpu", dashboard=False))
    assert stored(tmp_path) == stored(whole)


def test_a_worker_that_gets_another_network_or_one_without_bounds_says_so_as_it_starts(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    rules = VerificationRules(0, AttackConfig(steps=1, restarts=1), 8)
    name = "verifiable_networks:{}".format
    setup = VerificationSetup(None, name("small"), name("small"), 3, "0" * 64, rules, "cpu", 1, str(HERE))
    assert "gives another network here than where the run was started" in WorkerActor(setup).ready()[1]
    from verifiable_networks import unknown

    with torch.random.fork_rng():
        torch.manual_seed(0)
        hashed = weights_hash(unknown())
        torch.manual_seed(0)
        setup = replace(setup, function=name("unknown"), weights=hashed)
        problem = WorkerActor(setup).ready()[1]
    assert "no bounds are known for GELU" in problem
    assert "layer 1" in problem


def test_an_image_that_fails_is_named_alone_and_tried_again(whole, tmp_path, monkeypatch):
    def failing(network, images, labels, epsilon):
        if epsilon == 0.05 and torch.equal(images[0], PIXELS[8] / 255):
            raise RuntimeError("a bad image")
        return verified_margins(network, images, labels, epsilon)

    monkeypatch.setattr(workers, "verified_margins", failing)
    result = verify(recipe(tmp_path))
    told = {level.epsilon: [(f.image, f.reason) for f in level.failed] for level in result.epsilons}
    assert told[0.0] == told[0.002] == []
    ((image, reason),) = told[0.05]
    assert image == 8
    assert "3 tries failed; the last:" in reason
    assert "RuntimeError: a bad image" in reason
    assert stored(tmp_path) == [row for row in stored(whole) if row[:2] != (0.05, 8)]
    monkeypatch.undo()
    assert not any(level.failed for level in verify(recipe(tmp_path)).epsilons)
    assert stored(tmp_path) == stored(whole)


def test_a_network_that_fails_on_every_image_ends_the_run(tmp_path, monkeypatch):
    def failing(*arguments):
        raise RuntimeError("no memory")

    monkeypatch.setattr(workers, "verified_margins", failing)
    with pytest.raises(RunFailure, match=r"every image tried at epsilon 0 failed; the last, .*no memory"):
        verify(recipe(tmp_path))


def test_bounds_that_are_not_numbers_are_no_certificate(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "verified_margins", lambda *a: torch.tensor([float("nan")]))
    with pytest.raises(RunFailure, match=r"every image .*not finite"):
        verify(recipe(tmp_path))
    assert stored(tmp_path) == []


def test_unsound_bounds_are_found_as_contradictions(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "verified_margins", lambda network, images, *rest: torch.ones(len(images)))
    (level,) = verify(recipe(tmp_path, epsilons=(0.002,))).epsilons
    assert [image.image for image in level.contradictions] == [WRONG]


def test_an_attack_that_overlooks_the_clean_images_error_is_no_result(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "pgd_margins", lambda network, images, *rest: torch.ones(len(images)))
    (level,) = verify(recipe(tmp_path, epsilons=(0.002,))).epsilons
    assert [failed.image for failed in level.failed] == [WRONG]
    assert "yet the least margin found is 1.0" in level.failed[0].reason


@pytest.mark.parametrize(
    ("margin", "attack", "contradicts"),
    [(1e-8, 0.0, False), (4e-6, -4e-6, False), (2e-5, 0.0, True), (1e-8, -2e-5, True), (0.5, 0.4, False),
     (-1e-8, -1.0, False)],
)  # fmt: skip
def test_margins_contradict_each_other_only_beyond_rounding(margin, attack, contradicts):
    image = StoredVerification(0, "0", 5, 5, margin, attack, 0.1)
    assert image.contradicts is contradicts
    assert image.verified is (margin > 0)  # strict: rounding is forgiven to no certificate
    assert image.pgd_error is (attack <= 0)


def test_a_ledger_is_of_one_network_one_attack_and_one_seed(whole):
    for change, told in (
        ({"seed": 2}, "seed 0 there, 2 here"),
        ({"attack": {"steps": 6, "restarts": 2}}, "attack_steps 5 there, 6 here"),
        ({"function": "verifiable_networks:other"}, "weights .* there, .* here"),
    ):
        with pytest.raises(InvalidInput, match=f"belongs to another run: {told}"):
            verify(recipe(whole, **change))


def smoothing(output):
    config = CertifyConfig.model_validate(
        {"name": "noise", "output": str(output), "data": "unused", "image_size": 8, "n0": 10, "n": 100, "block": 100,
         "classifiers": [{"sigma": 0.5, "function": "verifiable_networks:small"}], "images": {"count": 2}}
    )  # fmt: skip
    return certify(config, images=images_of_tensor(PIXELS, LABELS, 10, config.images), show=False)


def test_verification_and_smoothing_never_share_a_ledger(whole, tmp_path):
    smoothing(tmp_path / "noise")
    with pytest.raises(
        InvalidInput, match="of certificates by randomized smoothing, not of deterministic ℓ∞ verificat"
    ):
        verify(recipe(tmp_path / "noise"))
    with pytest.raises(
        InvalidInput, match="of deterministic ℓ∞ verification, not of certificates by randomized smooth"
    ):
        smoothing(whole)
    ledgers = [tmp_path / "noise" / "ledger.sqlite", whole / "ledger.sqlite"]
    with pytest.raises(InvalidInput, match="never share a ledger"):
        merge_ledgers(tmp_path / "merged.sqlite", ledgers)
    with pytest.raises(InvalidInput, match="never share a ledger"):
        merge_verifications(tmp_path / "merged.sqlite", ledgers[::-1])
    assert not (tmp_path / "merged.sqlite").exists()


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Ledgers of other images and other ε, which share an image."""
    folder = tmp_path_factory.mktemp("parts")
    verify(recipe(folder / "a", images={"count": 7}))
    verify(recipe(folder / "b", images={"start": 6}, epsilons=(0.002, 0.05)))
    verify(recipe(folder / "c", images={"start": 7}, epsilons=(0.0,)))
    return [folder / name / "ledger.sqlite" for name in "abc"]


def test_merged_ledgers_hold_what_one_run_holds_and_go_on(whole, parts, tmp_path):
    merged = merge_verifications(tmp_path / "ledger.sqlite", parts)
    assert (merged.epsilons, merged.verifications, merged.repeated) == (3, 36, 2)
    assert stored(tmp_path) == stored(whole)
    verify(recipe(tmp_path))
    assert stored(tmp_path) == stored(whole)


def test_ledgers_that_differ_are_not_merged_and_what_differs_is_said(parts, tmp_path):
    verify(recipe(tmp_path / "other", seed=3, images={"count": 1}))
    with pytest.raises(InvalidInput, match=r"different verifications: seed is 0 in .* and 3 in "):
        merge_verifications(tmp_path / "merged.sqlite", [parts[0], tmp_path / "other" / "ledger.sqlite"])
    lie = tmp_path / "lie.sqlite"
    lie.write_bytes(parts[1].read_bytes())
    with sqlite3.connect(lie) as connection:
        connection.execute("UPDATE verifications SET margin = margin + 1 WHERE image = 6")
    with pytest.raises(InvalidInput, match=r"image 6 at epsilon 0\.002 has other margins in .*lie"):
        merge_verifications(tmp_path / "merged.sqlite", [parts[0], lie])
    assert not (tmp_path / "merged.sqlite").exists()


def test_a_failure_that_another_ledger_made_good_is_forgotten(parts, tmp_path, monkeypatch):
    def failing(network, images, labels, epsilon):
        if torch.equal(images[0], PIXELS[6] / 255):
            raise RuntimeError("a bad image")
        return verified_margins(network, images, labels, epsilon)

    monkeypatch.setattr(workers, "verified_margins", failing)
    verify(recipe(tmp_path / "bad", images={"start": 5, "count": 2}, epsilons=(0.002,)))
    merge_verifications(tmp_path / "merged.sqlite", [tmp_path / "bad" / "ledger.sqlite", parts[0]])
    with VerificationReader(tmp_path / "merged.sqlite") as reader:
        assert reader.failures(0.002) == []
        assert len(reader.verified(0.002)) == 7
