"""Merging ledgers: as if one machine had counted everything, or refused saying what differs and where."""

import shutil
import sqlite3
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from command import rrcm

from rrcm_dist.certification.blocks import Block, BlockCounts, Stage
from rrcm_dist.certification.images import images_of_tensor
from rrcm_dist.certification.ledger.file import RunIdentity
from rrcm_dist.certification.ledger.merge import merge_ledgers
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.run import certify
from rrcm_dist.config.schema import CertifyConfig
from rrcm_dist.errors import InvalidInput, RunFailure

IDENTITY = RunIdentity(
    seed=0, n0=10, alpha=0.001, block=100, dataset="d" * 64, classes=3, image_size=32, noise="cpu", precision="fp32"
)
ADAPTIVE = replace(IDENTITY, mode="adaptive", first_block=100, growth=0.15)


def counted(image, number, counts, sigma=0.5, host="a-host", stage=Stage.ESTIMATION):
    counts = np.array(counts, dtype=np.int64)
    return BlockCounts(Block(image, f"key{image}", sigma, stage, number, int(counts.sum())), counts, host, 0.25)


def selected(image, counts=(1, 9, 0), sigma=0.5, host="a-host"):
    return counted(image, 0, counts, sigma, host, Stage.SELECTION)


def finished(image, sigma=0.5, host="a-host"):
    return [selected(image, sigma=sigma, host=host), *(counted(image, i, [2, 97, 1], sigma, host) for i in range(2))]


def write(path, blocks, identity=IDENTITY, n=200, weights="w", settings=None, failed=(), name="test"):
    """A ledger with `blocks`; `failed` are images given up at σ 0.5."""
    with Ledger(path, identity, n, name, settings) as ledger:
        for sigma in {block.block.sigma for block in blocks} | ({0.5} if failed else set()):
            ledger.set_classifier(sigma, weights * 64, f"source of {weights}")
        images = {block.block.image for block in blocks} | set(failed)
        ledger.add_images([(image, f"key{image}", image % 3) for image in sorted(images)])
        ledger.add(replace(b, counts=np.pad(b.counts, (0, identity.classes - len(b.counts)))) for b in blocks)
        for image in failed:
            ledger.fail(0.5, image, "it threw")
    return path


def contents(path):
    """All that a ledger holds of its run, without the numbers that its tables give to things."""
    queries = (
        "SELECT sigmas.sigma, weights, source, image, key, label, stage, number, draws, counts, hosts.name, seconds "
        "FROM blocks JOIN sigmas ON sigmas.id = blocks.sigma JOIN images ON images.id = image "
        "JOIN hosts ON hosts.id = host ORDER BY 1, 4, 7, 8",
        "SELECT name, value FROM facts ORDER BY name",
        "SELECT sigmas.sigma, image, reason FROM failures JOIN sigmas ON sigmas.id = failures.sigma ORDER BY 1, 2",
    )
    connection = sqlite3.connect(path)
    try:
        return [connection.execute(query).fetchall() for query in queries]
    finally:
        connection.close()


def refusal(tmp_path, first, second, error=InvalidInput):
    """What the refusal says; nothing may have been written, and the inputs must be as they were."""
    before = first.read_bytes(), second.read_bytes()
    with pytest.raises(error) as refused:
        merge_ledgers(tmp_path / "merged.sqlite", [first, second])
    assert (first.read_bytes(), second.read_bytes()) == before
    assert not list(tmp_path.glob("*merged*"))
    assert not list(tmp_path.glob(".*"))
    return str(refused.value)


def test_other_images_other_noise_levels_and_other_blocks_merge_as_if_one_machine_had_counted(tmp_path):
    images = [*finished(7), *finished(8, host="b-host")]
    level = finished(7, 0.25, "b-host")
    shared, rest = finished(9)[:2], finished(9, host="b-host")[2:]
    whole = write(tmp_path / "whole.sqlite", [*images, *level, *shared, *rest], settings={"radii": [0.0, 0.5]})
    a = write(tmp_path / "a.sqlite", [*images[:3], *shared], settings={"radii": [0.0, 0.5]})
    b = write(tmp_path / "b.sqlite", [*images[3:], *rest])
    c = write(tmp_path / "c.sqlite", level)
    before = [path.read_bytes() for path in (a, b, c)]
    merged = merge_ledgers(tmp_path / "new" / "merged.sqlite", [a, b, c])
    assert (merged.blocks, merged.repeated, merged.sigmas, merged.images) == (12, 0, 2, 3)
    assert contents(merged.ledger) == contents(whole)
    assert [path.read_bytes() for path in (a, b, c)] == before
    with LedgerReader(merged.ledger) as reader, LedgerReader(whole) as expected:
        assert reader.certificates(0.5) == expected.certificates(0.5)
        assert [certificate.key for certificate in reader.certificates(0.5)] == ["key7", "key8", "key9"]


def test_real_runs_of_two_machines_merge_to_the_counts_of_one(tmp_path):
    pixels = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8))

    def run(name, **changes):
        values = {
            "name": "test", "output": str(tmp_path / name), "data": "unused", "image_size": 8, "n0": 20, "n": 250,
            "block": 100, "device_batch": 64,
            "classifiers": [{"sigma": sigma, "function": "certification_models:small"} for sigma in (0.25, 0.5)],
        }  # fmt: skip
        config = CertifyConfig.model_validate(values | changes)
        images = images_of_tensor(pixels, [0, 1, 2, 3], 10, config.images)
        return certify(config, torch.device("cpu"), images, show=False).ledger

    whole = run("whole")
    parts = [run("even", images={"every": 2}), run("odd", images={"start": 1, "every": 2})]
    merged = merge_ledgers(tmp_path / "merged.sqlite", parts)
    assert (merged.blocks, merged.repeated) == (4 * 2 * 4, 0)
    with LedgerReader(merged.ledger) as reader, LedgerReader(whole) as expected:
        for sigma in (0.25, 0.5):
            found, wanted = reader.certificates(sigma), expected.certificates(sigma)
            assert [replace(c, seconds=0.0) for c in found] == [replace(c, seconds=0.0) for c in wanted]
            assert len(found) == 4


def test_a_merged_ledger_is_gone_on_with(tmp_path):
    a, b = write(tmp_path / "a.sqlite", finished(7)), write(tmp_path / "b.sqlite", finished(8)[:2])
    merged = merge_ledgers(tmp_path / "merged.sqlite", [a, b]).ledger
    write(merged, finished(8)[2:])
    with LedgerReader(merged) as reader:
        assert [certificate.successes for certificate in reader.certificates(0.5)] == [194, 194]


def test_a_block_that_two_ledgers_have_is_taken_once(tmp_path):
    a, b = write(tmp_path / "a.sqlite", finished(7)), write(tmp_path / "b.sqlite", finished(7, host="b-host"))
    merged = merge_ledgers(tmp_path / "merged.sqlite", [a, b])
    assert (merged.blocks, merged.repeated) == (3, 3)
    assert {row[10] for row in contents(merged.ledger)[0]} == {"a-host"}
    with LedgerReader(merged.ledger) as reader:
        assert [certificate.n for certificate in reader.certificates(0.5)] == [200]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_a_block_drawn_for_two_numbers_of_draws_the_longer_is_taken(tmp_path, order):
    paths = [tmp_path / "a.sqlite", tmp_path / "b.sqlite"]
    write(paths[0], [*finished(7)[:2], counted(7, 1, [2, 48, 0])], n=150)
    write(paths[0], [selected(8)], n=200)  # the larger n, not yet drawn for image 7
    write(paths[1], finished(7))
    merged = merge_ledgers(tmp_path / "merged.sqlite", [paths[i] for i in order])
    with LedgerReader(merged.ledger) as reader:
        assert [counts.estimation.tolist() for counts in reader.counts(0.5)] == [[4, 194, 2]]


def test_a_longer_block_that_does_not_hold_the_shorter_is_refused(tmp_path):
    a = write(tmp_path / "a.sqlite", [*finished(7)[:2], counted(7, 1, [3, 47, 0])], n=150)
    write(a, [selected(8)], n=200)
    assert "estimation block 1 of image 7" in refusal(tmp_path, a, write(tmp_path / "b.sqlite", finished(7)))


@pytest.mark.parametrize(("field", "value"), [
    ("seed", 1), ("n0", 20), ("alpha", 0.01), ("block", 50), ("dataset", "e" * 64), ("classes", 4), ("image_size", 64),
    ("noise", "cuda"), ("precision", "bf16"), ("mode", "adaptive"), ("first_block", 100), ("growth", 0.15),
])  # fmt: skip
def test_ledgers_of_different_runs_are_refused_saying_what_differs_and_where(tmp_path, field, value):
    a = write(tmp_path / "a.sqlite", finished(7))
    b = write(tmp_path / "b.sqlite", finished(8), replace(IDENTITY, **{field: value}))
    said = refusal(tmp_path, a, b)
    assert f"{field} is {getattr(IDENTITY, field)} in {a} and {value} in {b}" in said


def test_every_field_of_a_runs_identity_is_tested_above():
    tested = next(m for m in test_ledgers_of_different_runs_are_refused_saying_what_differs_and_where.pytestmark)
    assert {field for field, _ in tested.args[1]} == set(RunIdentity.__dataclass_fields__)


def test_another_number_of_draws_is_refused_saying_how_to_bring_them_together(tmp_path):
    a, b = write(tmp_path / "a.sqlite", finished(7)), write(tmp_path / "b.sqlite", finished(8), n=300)
    said = refusal(tmp_path, a, b)
    assert f"n is 200 in {a} and 300 in {b}: bring {a} to the same n first, by `rrcm certify`" in said
    assert "n=300" in said


def test_other_weights_at_one_noise_level_are_refused(tmp_path):
    a, b = write(tmp_path / "a.sqlite", finished(7)), write(tmp_path / "b.sqlite", finished(8), weights="v")
    assert f"sigma 0.5 differ: weights {'w' * 12}… from source of w in {a}, {'v' * 12}…" in refusal(tmp_path, a, b)


def test_weights_of_a_noise_level_that_has_no_counts_do_not_matter(tmp_path):
    a = write(tmp_path / "a.sqlite", finished(7))
    with Ledger(a, IDENTITY, 200) as ledger:
        ledger.set_classifier(0.25, "v" * 64, "elsewhere")
    merged = merge_ledgers(tmp_path / "merged.sqlite", [a, write(tmp_path / "b.sqlite", finished(7, 0.25))])
    with LedgerReader(merged.ledger) as reader:
        assert [(level.sigma, level.weights[0]) for level in reader.classifiers()] == [(0.25, "w"), (0.5, "w")]


def test_another_choice_of_class_is_refused_naming_both_hosts(tmp_path):
    a = write(tmp_path / "a.sqlite", finished(7))
    b = write(tmp_path / "b.sqlite", [selected(7, (6, 4, 0), host="b-host")])
    said = refusal(tmp_path, a, b)
    assert f"selection block 0 of image 7 at sigma 0.5 has other counts in {a}, counted by a-host, than in {b}" in said
    assert "counted by b-host (most often class 1 and 0)" in said


def test_a_block_with_other_counts_is_refused_naming_both_hosts(tmp_path):
    a = write(tmp_path / "a.sqlite", finished(7))
    b = write(tmp_path / "b.sqlite", [counted(7, 1, [3, 96, 1], host="b-host")])
    said = refusal(tmp_path, a, b)
    assert f"estimation block 1 of image 7 at sigma 0.5 has other counts in {a}, counted by a-host" in said
    assert f"than in {b}, counted by b-host: one of the two counts wrongly" in said


def test_another_image_of_the_same_number_is_refused(tmp_path):
    a, b = write(tmp_path / "a.sqlite", finished(7)), write(tmp_path / "b.sqlite", finished(8))
    connection = sqlite3.connect(b)
    connection.execute("INSERT INTO images VALUES (7, 'another', 2)")
    connection.commit()
    connection.close()
    assert f"image 7 is key7 of label 1 in an earlier ledger, and another of label 2 in {b}" in refusal(tmp_path, a, b)


def test_failures_stay_unless_another_ledger_finished_the_image(tmp_path):
    a = write(tmp_path / "a.sqlite", finished(6), failed=[7, 8])
    b = write(tmp_path / "b.sqlite", finished(7), failed=[9])
    merged = merge_ledgers(tmp_path / "merged.sqlite", [a, b])
    with LedgerReader(merged.ledger) as reader:
        assert [(failure.image, failure.reason) for failure in reader.failures(0.5)] == [
            (8, "it threw"), (9, "it threw"),
        ]  # fmt: skip


def test_in_mode_adaptive_the_stopping_rule_must_agree_and_in_mode_fixed_the_radii_need_not(tmp_path):
    settings = [{"radii": radii, "adaptive": {"draws_per_radius": 60_000.0}} for radii in ([0.0], [0.0, 0.5])]
    blocks = [[selected(image), counted(image, 0, [0, 100, 0])] for image in (7, 8)]
    a, b = (
        write(tmp_path / f"{i}.sqlite", blocks[i], ADAPTIVE, n=100_000, settings=settings[i]) for i in range(2)
    )  # fmt: skip
    assert f"radii is [0.0] in {a} and [0.0, 0.5] in {b}" in refusal(tmp_path, a, b)
    same = write(tmp_path / "same.sqlite", blocks[1], ADAPTIVE, n=100_000, settings=settings[0])
    assert merge_ledgers(tmp_path / "adaptive.sqlite", [a, same]).blocks == 4
    fixed = [write(tmp_path / f"f{i}.sqlite", finished(i), settings=settings[i]) for i in range(2)]
    assert merge_ledgers(tmp_path / "fixed.sqlite", fixed).blocks == 6


def test_what_is_there_already_is_left_as_it_is(tmp_path):
    a, b = write(tmp_path / "a.sqlite", finished(7)), write(tmp_path / "b.sqlite", finished(8))
    for taken in (a, b):
        before = taken.read_bytes()
        with pytest.raises(InvalidInput, match="is there already"):
            merge_ledgers(taken, [a, b])
        assert taken.read_bytes() == before
    with pytest.raises(InvalidInput, match="at least two different"):
        merge_ledgers(tmp_path / "merged.sqlite", [a, tmp_path / "." / "a.sqlite"])
    with pytest.raises(InvalidInput, match="at least two different"):
        merge_ledgers(tmp_path / "merged.sqlite", [a])


@pytest.mark.parametrize("damage", ["middle", "cut", "counts"])
def test_a_damaged_ledger_is_not_merged(tmp_path, damage):
    blocks = [counted(8, number, [1, 98, 1]) for number in range(1000)]
    a, b = write(tmp_path / "a.sqlite", finished(7), n=100_000), write(tmp_path / "b.sqlite", blocks, n=100_000)
    good = b.read_bytes()
    if damage == "counts":
        connection = sqlite3.connect(b)
        connection.execute("UPDATE blocks SET draws = 99 WHERE number = 500")
        connection.commit()
        connection.close()
    else:
        b.write_bytes(good[:8192] + b"\xff" * 30_000 + good[38_192:] if damage == "middle" else good[: len(good) // 2])
    assert str(b) in refusal(tmp_path, a, b, RunFailure)


def test_a_ledger_that_is_being_written_is_merged_as_it_stands(tmp_path):
    a = write(tmp_path / "a.sqlite", finished(7))
    with Ledger(tmp_path / "b.sqlite", IDENTITY, 200) as ledger:
        ledger.set_classifier(0.5, "w" * 64, "somewhere")
        ledger.add_images([(8, "key8", 2)])
        ledger.add(finished(8)[:2])
        ledger.commit()
        ledger.add(finished(8)[2:])
        assert merge_ledgers(tmp_path / "merged.sqlite", [a, ledger.path]).blocks == 5


def test_a_hundred_and_fifty_thousand_blocks_are_merged_in_seconds(tmp_path):
    generator = np.random.default_rng(0)
    identity = replace(IDENTITY, classes=1000, n0=100, block=1000)
    shapes = [generator.multinomial(1000, generator.dirichlet(np.full(1000, 0.02))) for _ in range(50)]
    chosen = generator.multinomial(100, [0.9] + [0.1 / 999] * 999)

    a, b = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    estimated = [counted(0, number, shapes[number % 50]) for number in range(100)]
    of_one = [selected(0, chosen), *estimated]
    write(a, [replace(c, block=replace(c.block, image=i)) for i in range(800) for c in of_one], identity, n=100_000)
    shutil.copy(a, b)
    connection = sqlite3.connect(b)
    connection.execute("CREATE TEMP TABLE moved AS SELECT * FROM blocks")
    connection.executescript("DELETE FROM blocks; UPDATE images SET id = -id; UPDATE images SET id = 700 - id, "
                             "key = 'key' || (700 - id), label = (700 - id) % 3; UPDATE moved SET image = image + 700; "
                             "INSERT INTO blocks SELECT * FROM moved ORDER BY sigma, image, stage, number")  # fmt: skip
    connection.close()
    start = time.perf_counter()
    merged = merge_ledgers(tmp_path / "merged.sqlite", [a, b])
    seconds = time.perf_counter() - start
    print(f"{merged.blocks} blocks merged in {seconds:.2f} s, {merged.ledger.stat().st_size / 1e6:.0f} MB")
    assert (merged.blocks, merged.repeated, merged.images) == (151_500, 10_100, 1500)
    assert seconds < 30, "generous for a busy machine"


def test_the_command_takes_run_folders_and_says_what_came_of_it(tmp_path, monkeypatch, capsys):
    write(tmp_path / "one" / "ledger.sqlite", finished(7))
    write(tmp_path / "two" / "ledger.sqlite", [*finished(8), *finished(7)])
    monkeypatch.chdir(tmp_path)
    for code, said in (
        (0, "6 blocks, 3 of them in several: 2 images, 1 noise level"),
        (2, "all/ledger.sqlite is there"),
    ):
        ended, out, err = rrcm(monkeypatch, capsys, "merge", "all", "one", "two")
        assert (ended, said in out + err) == (code, True), out + err
    with LedgerReader(tmp_path / "all" / "ledger.sqlite") as reader:
        assert len(reader.certificates(0.5)) == 2
