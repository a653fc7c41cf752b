"""The ledger: a block once, one run, one writer, never overwritten, readable meanwhile, compact and quick."""

import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from rrcm_dist.certification.blocks import Block, BlockCounts, Stage, pack_counts, unpack_counts
from rrcm_dist.certification.images import CertifiedImage
from rrcm_dist.certification.ledger.file import RunIdentity
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.plan import planned_blocks
from rrcm_dist.certification.smoothing.tracks import Track
from rrcm_dist.certification.statistics.bounds import clopper_pearson_lower
from rrcm_dist.errors import InvalidInput, RunFailure

IDENTITY = RunIdentity(
    seed=0, n0=10, alpha=0.001, block=100, dataset="d" * 64, classes=3, image_size=32, noise="cpu", precision="fp32"
)


def counted(image, stage, number, counts, sigma=0.5, host="here"):
    counts = np.array(counts, dtype=np.int64)
    return BlockCounts(Block(image, f"key{image}", sigma, stage, number, int(counts.sum())), counts, host, 0.25)


def open_ledger(path, identity=IDENTITY, n=200):
    ledger = Ledger(path, identity, n, "test")
    ledger.set_classifier(0.5, "w" * 64, "somewhere")
    ledger.add_images([(7, "key7", 1), (8, "key8", 2)])
    return ledger


SELECTION = counted(7, Stage.SELECTION, 0, [1, 9, 0])
FIRST, SECOND = counted(7, Stage.ESTIMATION, 0, [2, 97, 1]), counted(7, Stage.ESTIMATION, 1, [0, 100, 0])


def test_packed_counts_come_back():
    for counts in ([0, 0, 0], [5, 0, 1], [2**16, 0, 1], [0] * 999 + [7], [3] * 70_000):
        array = np.array(counts, dtype=np.int64)
        classes, values = unpack_counts(pack_counts(array))
        back = np.zeros_like(array)
        back[classes] = values
        assert (back == array).all()


def test_bytes_that_are_no_packed_counts_are_refused():
    for packed in (b"", b"\x03\x00\x00", b"\x02\x00\x00\x00", b"\x04\x00\x00\x00\x00"):
        with pytest.raises(ValueError, match="no packed counts"):
            unpack_counts(packed)


def test_counts_are_summed_before_they_are_bounded_once(tmp_path):
    with open_ledger(tmp_path / "l.sqlite") as ledger:
        ledger.add([SELECTION, FIRST, SECOND])
    with LedgerReader(tmp_path / "l.sqlite") as reader:
        (certificate,) = reader.certificates(0.5)
    assert (certificate.successes, certificate.n, certificate.n0, certificate.selected) == (197, 200, 10, 9)
    assert certificate.p_lower == float(clopper_pearson_lower(197, 200, 0.001))
    assert certificate.p_lower != pytest.approx(np.mean([clopper_pearson_lower(k, 100, 0.001) for k in (97, 100)]))
    assert (certificate.prediction, certificate.label, certificate.correct) == (1, 1, True)
    assert certificate.seconds == 0.75


def test_selection_draws_choose_the_class_and_never_enter_the_estimate(tmp_path):
    with open_ledger(tmp_path / "l.sqlite") as ledger:
        ledger.add([counted(7, Stage.SELECTION, 0, [6, 4, 0]), FIRST, SECOND])
    with LedgerReader(tmp_path / "l.sqlite") as reader:
        (certificate,) = reader.certificates(0.5)
    assert (certificate.candidate, certificate.successes, certificate.n) == (0, 2, 200)
    assert (certificate.prediction, certificate.radius, certificate.correct) == (-1, 0.0, False)


def test_a_bound_can_be_changed_without_a_draw(tmp_path):
    with open_ledger(tmp_path / "l.sqlite") as ledger:
        ledger.add([SELECTION, FIRST, SECOND])
    with LedgerReader(tmp_path / "l.sqlite") as reader:
        (wide,), (narrow,) = reader.certificates(0.5), reader.certificates(0.5, alpha=0.05)
        (fewer,) = reader.certificates(0.5, n=100)
        with pytest.raises(InvalidInput, match="multiple of 100"):
            reader.certificates(0.5, n=150)
    assert narrow.p_lower == float(clopper_pearson_lower(197, 200, 0.05)) > wide.p_lower
    assert (fewer.successes, fewer.n) == (97, 100)


def test_a_block_is_taken_once(tmp_path):
    with open_ledger(tmp_path / "l.sqlite") as ledger:
        ledger.add([SELECTION, FIRST])
        ledger.add([FIRST, counted(7, Stage.ESTIMATION, 0, [100, 0, 0]), SECOND])
    with LedgerReader(tmp_path / "l.sqlite") as reader:
        (image,) = reader.counts(0.5)
    assert image.estimation.tolist() == [2, 197, 1]


def test_an_image_without_all_its_draws_has_no_certificate(tmp_path):
    with open_ledger(tmp_path / "l.sqlite") as ledger:
        ledger.add([SELECTION, SECOND, counted(8, Stage.ESTIMATION, 0, [100, 0, 0])])
    with LedgerReader(tmp_path / "l.sqlite") as reader:
        assert reader.certificates(0.5) == []


def test_more_draws_later_add_only_the_missing_blocks(tmp_path):
    path = tmp_path / "l.sqlite"
    with open_ledger(path, n=150) as ledger:
        ledger.add([SELECTION, FIRST, counted(7, Stage.ESTIMATION, 1, [0, 50, 0])])
    with open_ledger(path, n=300) as ledger:
        ((image, held),) = ledger.blocks(0.5)
        track = Track(CertifiedImage(7, "key7", 1), 0.5, planned_blocks(10, 300, 100), in_order=False)
        track.resume(held)
        blocks = [track.next_unit(), track.next_unit()]
        assert image == 7
        assert track.next_unit() is None
        assert [(b.stage, b.number, b.draws) for b in blocks] == [
            (Stage.ESTIMATION, 1, 100),
            (Stage.ESTIMATION, 2, 100),
        ]
        ledger.add([SECOND, counted(7, Stage.ESTIMATION, 2, [1, 99, 0])])
    with LedgerReader(path) as reader:
        assert [image.estimation.tolist() for image in reader.counts(0.5)] == [[3, 296, 1]]
    with pytest.raises(InvalidInput, match="may grow, not shrink"):
        open_ledger(path, n=200)


@pytest.mark.parametrize(("field", "value"), [
    ("seed", 1), ("n0", 20), ("alpha", 0.01), ("block", 50), ("dataset", "e" * 64), ("classes", 4), ("image_size", 64),
    ("noise", "cuda"), ("precision", "bf16"), ("mode", "adaptive"), ("first_block", 50), ("growth", 0.5),
])  # fmt: skip
def test_a_ledger_of_another_run_is_refused_saying_what_differs(tmp_path, field, value):
    with open_ledger(tmp_path / "l.sqlite") as ledger:
        ledger.add([SELECTION])
    before = (tmp_path / "l.sqlite").read_bytes()
    with pytest.raises(InvalidInput, match=f"another run: {field} .* there, {value} here"):
        open_ledger(tmp_path / "l.sqlite", replace(IDENTITY, **{field: value}))
    assert (tmp_path / "l.sqlite").read_bytes() == before


def test_a_ledger_without_a_block_becomes_that_of_the_run_that_opens_it(tmp_path):
    open_ledger(tmp_path / "l.sqlite").close()
    other = replace(IDENTITY, seed=1, dataset="e" * 64)
    with Ledger(tmp_path / "l.sqlite", other, 100, "other") as ledger:
        ledger.set_classifier(0.5, "v" * 64, "elsewhere")
        ledger.add_images([(7, "another", 0)])
        ledger.add([SELECTION, FIRST])
    with LedgerReader(tmp_path / "l.sqlite") as reader:
        assert (reader.identity, reader.n, reader.name) == (other, 100, "other")
        assert [(c.key, c.n) for c in reader.certificates(0.5)] == [("another", 100)]
        assert [c.source for c in reader.classifiers()] == ["elsewhere"]


def test_a_larger_n_holds_from_its_first_block_on(tmp_path):
    path = tmp_path / "l.sqlite"
    with open_ledger(path) as ledger:
        ledger.add([SELECTION, FIRST, SECOND])
    open_ledger(path, n=300).close()
    with LedgerReader(path) as reader:
        assert (reader.n, len(reader.certificates(0.5))) == (200, 1)
    with open_ledger(path, n=300) as ledger:
        ledger.add([counted(8, Stage.SELECTION, 0, [10, 0, 0])])
    with LedgerReader(path) as reader:
        assert (reader.n, len(reader.certificates(0.5)), len(reader.certificates(0.5, n=200))) == (300, 0, 1)


def test_counts_of_another_classifier_are_refused(tmp_path):
    with open_ledger(tmp_path / "l.sqlite") as ledger:
        ledger.add([SELECTION])
    with Ledger(tmp_path / "l.sqlite", IDENTITY, 200) as ledger:
        with pytest.raises(InvalidInput, match=r"another classifier at sigma 0\.5.*elsewhere"):
            ledger.set_classifier(0.5, "v" * 64, "elsewhere")
        ledger.set_classifier(1.0, "v" * 64, "elsewhere")


def test_two_images_of_one_key_are_refused(tmp_path):
    with open_ledger(tmp_path / "l.sqlite") as ledger, pytest.raises(RunFailure, match="key"):
        ledger.add_images([(9, "key7", 1)])


def test_counts_that_are_not_the_blocks_are_refused(tmp_path):
    with open_ledger(tmp_path / "l.sqlite") as ledger:
        with pytest.raises(RunFailure, match="returned 99 draws"):
            ledger.add([replace(FIRST, counts=np.array([2, 97, 0]))])
        with pytest.raises(RunFailure, match="4 classes"):
            ledger.add([replace(FIRST, counts=np.array([2, 97, 1, 0]))])


@pytest.mark.parametrize("damage", ["header", "middle", "cut", "empty", "text"])
def test_a_damaged_ledger_is_refused_and_left_as_it_is(tmp_path, damage):
    path = tmp_path / "l.sqlite"
    with open_ledger(path, n=100_000) as ledger:
        ledger.add([counted(7, Stage.ESTIMATION, number, [1, 98, 1]) for number in range(1000)])
    good = path.read_bytes()
    bad = {
        "header": b"\0" * 40 + good[40:],
        "middle": good[:8192] + b"\xff" * 30_000 + good[38_192:],
        "cut": good[: len(good) // 2],
        "empty": b"",
        "text": b"idx\tlabel\n" * 1000,
    }[damage]
    path.write_bytes(bad)
    with pytest.raises(RunFailure, match="left as it is"):
        open_ledger(path)
    assert path.read_bytes() == bad
    assert not (tmp_path / "l.sqlite-wal").exists()


def test_a_ledger_of_another_schema_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "l.sqlite"
    open_ledger(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(RunFailure, match="schema 99"):
        open_ledger(path)
    with pytest.raises(RunFailure, match="schema 99"):
        LedgerReader(path)
    assert path.read_bytes() == before


def test_another_database_is_not_taken_for_a_ledger(tmp_path):
    connection = sqlite3.connect(tmp_path / "l.sqlite")
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(RunFailure, match="not a ledger"):
        open_ledger(tmp_path / "l.sqlite")


def test_a_write_ahead_log_without_its_ledger_is_not_played_into_a_new_one(tmp_path):
    (tmp_path / "l.sqlite-wal").write_bytes(b"somebody's draws")
    with pytest.raises(RunFailure, match="no longer beside it"):
        open_ledger(tmp_path / "l.sqlite")
    (tmp_path / "l.sqlite-wal").write_bytes(b"")
    open_ledger(tmp_path / "l.sqlite").close()


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path):
    path = tmp_path / "l.sqlite"
    with open_ledger(path) as ledger:
        ledger.add([SELECTION, FIRST, SECOND])
        ledger.commit()
        with pytest.raises(RunFailure, match="another process is writing"):
            open_ledger(path)
        code = (
            "from rrcm_dist.certification.ledger.reader import LedgerReader; import sys\n"
            f"print(LedgerReader({str(path)!r}).certificates(0.5)[0].successes, 'torch' in sys.modules)"
        )
        ledger.add([counted(8, Stage.SELECTION, 0, [10, 0, 0])])
        read = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert read.stdout.split() == ["197", "False"]
    open_ledger(path).close()


def test_a_reader_sees_one_moment(tmp_path):
    path = tmp_path / "l.sqlite"
    with open_ledger(path) as ledger, LedgerReader(path) as early:
        ledger.add([SELECTION, FIRST, SECOND])
        ledger.commit()
        assert early.certificates(0.5) == []
        with LedgerReader(path) as late:
            assert len(late.certificates(0.5)) == 1


def test_a_ledger_in_a_folder_that_cannot_be_written_is_read(tmp_path):
    path = tmp_path / "l.sqlite"
    with open_ledger(path) as ledger:
        ledger.add([SELECTION, FIRST, SECOND])
    tmp_path.chmod(0o555)
    try:
        with LedgerReader(path) as reader:
            assert len(reader.certificates(0.5)) == 1
    finally:
        tmp_path.chmod(0o755)


def test_a_full_disk_is_said_and_what_was_committed_stays(tmp_path):
    path = tmp_path / "l.sqlite"
    ledger = open_ledger(path, n=10**7)
    ledger.add([SELECTION, FIRST, SECOND])
    ledger.commit()
    (pages,) = ledger._connection.execute("PRAGMA page_count").fetchone()
    ledger._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(RunFailure, match="disk is full"), ledger:
        ledger.add([counted(8, Stage.ESTIMATION, number, [1, 98, 1]) for number in range(10_000)])
    with LedgerReader(path) as reader:
        assert [image.estimation.tolist() for image in reader.counts(0.5, n=200)] == [[2, 197, 1]]
    open_ledger(path, n=10**7).close()


def test_a_hundred_and_fifty_thousand_blocks_are_small_and_quick(tmp_path):
    path, generator = tmp_path / "l.sqlite", np.random.default_rng(0)
    identity = replace(IDENTITY, classes=1000, n0=100, block=1000)
    shapes = [generator.multinomial(1000, generator.dirichlet(np.full(1000, 0.02))) for _ in range(50)]
    chosen = generator.multinomial(100, [0.9] + [0.1 / 999] * 999)
    with Ledger(path, identity, 100_000) as ledger:
        ledger.set_classifier(0.5, "w" * 64, "somewhere")
        ledger.add_images((image, f"key{image}", 0) for image in range(1500))
        start = time.process_time()
        for image in range(1500):
            ledger.add([counted(image, Stage.SELECTION, 0, chosen)])
            ledger.add([counted(image, Stage.ESTIMATION, number, shapes[number % 50]) for number in range(100)])
        ledger.commit()
        blocks_per_second = 151_500 / (time.process_time() - start)
    start = time.process_time()
    with LedgerReader(path) as reader:
        certificates = reader.certificates(0.5)
    read_seconds = time.process_time() - start
    print(f"{blocks_per_second:.0f} blocks/s, {path.stat().st_size / 1e6:.0f} MB, read in {read_seconds:.2f} s")
    assert len(certificates) == 1500
    assert path.stat().st_size < 100e6
    assert blocks_per_second > 3000, "of processor time, so that others do not matter"
    assert read_seconds < 10
    shutil.rmtree(tmp_path)


def test_a_closed_ledger_is_one_file_and_reading_it_leaves_no_other(tmp_path):
    path = tmp_path / "l.sqlite"
    with open_ledger(path) as ledger:
        ledger.add([SELECTION, FIRST, SECOND])
        assert (tmp_path / "l.sqlite-wal").exists()
    with LedgerReader(path) as reader:
        assert len(reader.certificates(0.5)) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["l.sqlite", "l.sqlite.lock"]
