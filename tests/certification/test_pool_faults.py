"""Whatever dies, fails or lies while a certification goes on: its ledger ends with the counts of an undisturbed one.

Real Ray throughout: a cluster of several raylets on this machine, with workers, nodes and classifiers made to fail.
"""

import os
import re
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import psutil
import pytest
import torch

from rrcm_dist.certification.images import images_of_tensor
from rrcm_dist.certification.on_ray import crew as ray_crew
from rrcm_dist.certification.on_ray.cluster import _reread_authentication
from rrcm_dist.certification.on_ray.pool import RayPool
from rrcm_dist.certification.pool import tasks
from rrcm_dist.certification.run import CertificationResult, certify
from rrcm_dist.config.schema import CertifyConfig
from rrcm_dist.errors import RunFailure

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

HERE = Path(__file__).parent
CPU = torch.device("cpu")
PIXELS = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8))
MARKED = (5, 2, 8)
"""Images of which red, green and blue is white throughout."""
for channel, image in enumerate(MARKED):
    PIXELS[image, channel] = 255
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}


def recipe(output: Path, function: str = "net", sigmas: tuple[float, ...] = (0.25, 0.5), **changes) -> CertifyConfig:
    classifiers = [{"sigma": sigma, "function": f"faulty_classifiers:{function}"} for sigma in sigmas]
    values = {
        "name": "faults", "output": str(output), "data": "unused", "image_size": 8, "n0": 20, "n": 1000, "block": 100,
        "device_batch": 100, "classifiers": classifiers,
    }  # fmt: skip
    return CertifyConfig.model_validate(values | changes)


def run(config: CertifyConfig, pool: RayPool | None = None, audit_every: int = 0) -> CertificationResult:
    images = images_of_tensor(PIXELS, [position % 10 for position in range(12)], 10, config.images)
    return certify(config, CPU, images, show=False, pool=pool, audit_every=audit_every)


def stored(output: Path) -> list[tuple]:
    """Every row of the ledger's blocks, apart from who counted and how long that took."""
    with sqlite3.connect(output / "ledger.sqlite") as connection:
        query = (
            "SELECT sigmas.sigma, image, stage, number, draws, counts FROM blocks "
            "JOIN sigmas ON sigmas.id = blocks.sigma ORDER BY sigmas.sigma, image, stage, number"
        )
        return connection.execute(query).fetchall()


class Faults:
    """What the workers are told, and who they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tell(self, **told: str) -> None:
        for name, text in told.items():
            (self.folder / name).write_text(text)

    def forget(self) -> None:
        for file in self.folder.iterdir():
            file.unlink()
        self.tell(driver=str(os.getpid()))

    def passes(self) -> dict[int, int]:
        """Of every living worker that has counted: passes so far, by process id."""
        found = {int(path.name.split("-")[1]): path.stat().st_size for path in self.folder.glob("passes-*")}
        driver = int((self.folder / "driver").read_text())
        return {pid: passes for pid, passes in found.items() if pid != driver and lives(pid)}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("faults")
        patch.setenv("FAULTS_FOLDER", str(folder))
        patch.chdir(HERE)  # where workers, too, look for modules
        yield Faults(folder)


@pytest.fixture(scope="module")
def cluster(faults: Faults, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A head node without CPUs and two nodes of one, which ask for a token."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        _reread_authentication()
        folder = tempfile.mkdtemp(prefix="rrcm-", dir="/tmp")  # sockets lie in it, whose paths must be short
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder, "_system_config": QUICK_TO_NOTICE}
        running = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            running.add_node(num_cpus=1)
        yield running
        running.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    _reread_authentication()


@pytest.fixture
def pool(cluster, faults: Faults) -> RayPool:
    faults.forget()
    return RayPool(address=cluster.address, device="cpu")


@pytest.fixture(scope="module")
def undisturbed(faults: Faults, tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    """The blocks of one process on CPU."""
    faults.forget()
    output = tmp_path_factory.mktemp("undisturbed")
    run(recipe(output))
    assert len(stored(output)) == 12 * 2 * 11
    return stored(output)


def lives(pid: int) -> bool:
    """Whether there is such a process, and not only its memory because nobody has asked how it ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class meanwhile:  # noqa: N801 - reads as a phrase
    """Do something in another thread within the block; what it raised comes out at the end."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act, self._error = act, None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._act()
        except BaseException as error:
            self._error = error

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind, error, trace) -> None:
        self._thread.join(timeout=60)
        if error is None and self._error is not None:
            raise self._error
        assert error is not None or not self._thread.is_alive()


def wait_for(what: Callable[[], object], seconds: float = 60):
    """The first true answer of `what`."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return found


def kill_workers(faults: Faults, kills: int) -> None:
    """Kill, one after the other, so many workers that have each counted a block or two."""
    for _ in range(kills):
        pid = wait_for(lambda: next((pid for pid, passes in faults.passes().items() if passes > 8), None))
        os.kill(pid, 9)
        wait_for(lambda pid=pid: not lives(pid))


def test_workers_killed_again_and_again_change_no_count(pool, faults, undisturbed, tmp_path):
    faults.tell(slow="0.04")
    with meanwhile(lambda: (kill_workers(faults, 4), faults.tell(slow="0"))):
        run(recipe(tmp_path), pool)
    assert stored(tmp_path) == undisturbed


def test_workers_killed_in_mode_adaptive_change_neither_counts_nor_where_images_stop(pool, faults, tmp_path):
    adaptive = {"mode": "adaptive", "n": 4000, "adaptive": {"first_block": 50, "growth": 0.1}}
    run(recipe(tmp_path / "whole", **adaptive))
    faults.tell(slow="0.04")
    with meanwhile(lambda: (kill_workers(faults, 3), faults.tell(slow="0"))):
        run(recipe(tmp_path / "killed", **adaptive), pool)
    assert stored(tmp_path / "killed") == stored(tmp_path / "whole")
    draws = {row[:2]: 0 for row in stored(tmp_path / "whole")}
    for sigma, image, _, _, drawn, _ in stored(tmp_path / "whole"):
        draws[sigma, image] += drawn
    assert len(set(draws.values())) > 5  # they stop at various numbers of draws


def test_a_node_killed_while_it_works_changes_no_count_and_one_that_joins_works(
    pool, cluster, faults, undisturbed, tmp_path
):
    faults.tell(slow="0.05")
    lost = next(iter(cluster.worker_nodes))
    with ThreadPoolExecutor() as threads:  # as nodes can be added in the main thread alone
        running = threads.submit(run, recipe(tmp_path), pool)
        try:
            wait_for(lambda: len(faults.passes()) == 2)
            with pytest.raises(RunFailure, match="another process is writing"):
                run(recipe(tmp_path))
            lost.all_processes["raylet"][0].process.kill()
            new = cluster.add_node(num_cpus=1)
            wait_for(lambda: workers_of(new, faults))
            assert not running.done()
        finally:
            faults.tell(slow="0")
        running.result(timeout=60)
    cluster.remove_node(lost)
    assert stored(tmp_path) == undisturbed


def workers_of(node, faults: Faults) -> list[int]:
    """The processes that count on a node of the cluster."""
    raylet = node.all_processes["raylet"][0].process.pid
    return [pid for pid in faults.passes() if psutil.Process(pid).ppid() == raylet]


def test_images_that_no_worker_can_count_are_given_up_alone_and_tried_again(pool, faults, undisturbed, tmp_path):
    faults.tell(marked="raise nan shape")
    reasons = ("ValueError: a white image", "logits are not finite", r"it returned \(\d+, 9\)")
    for level in run(recipe(tmp_path), pool).levels:
        told = {failed.image: failed.reason for failed in level.failed}
        assert sorted(told) == sorted(MARKED)
        for image, reason in zip(MARKED, reasons, strict=True):
            assert re.search(f"3 tries failed; the last: .*{reason}", told[image]), told
    assert [row for row in stored(tmp_path) if row[1] not in MARKED] == [r for r in undisturbed if r[1] not in MARKED]
    faults.tell(marked="")
    assert not any(level.failed for level in run(recipe(tmp_path), pool).levels)
    assert stored(tmp_path) == undisturbed


def test_an_image_that_kills_its_workers_is_isolated_and_given_up(pool, faults, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "LOSSES_BEFORE_FAILURE", 2)
    faults.tell(marked="exit")
    (level,) = run(recipe(tmp_path, sigmas=(0.5,)), pool).levels
    (failed,) = level.failed
    assert failed.image == MARKED[0]
    assert "2 workers in a row died at it or at another part of this image's work" in failed.reason
    assert stored(tmp_path) == [row for row in undisturbed if row[0] == 0.5 and row[1] != MARKED[0]]


def test_honest_workers_pass_an_audit_of_every_block(pool, undisturbed, tmp_path):
    result = run(recipe(tmp_path), pool, audit_every=1)
    assert not any(level.failed for level in result.levels)
    assert stored(tmp_path) == undisturbed


def test_a_worker_that_lies_is_found_by_an_audit_and_named(pool, faults, tmp_path):
    faults.tell(lie="yes", slow="0.02")
    (level,) = run(recipe(tmp_path, sigmas=(0.25,)), pool, audit_every=1).levels
    assert level.failed
    for failed in level.failed:
        named = re.search(r"came out differently by (\S+/\d+) and (\S+/\d+) \(host/worker\): \d+ of \d+", failed.reason)
        assert named, failed.reason
        assert named[1] != named[2]


@pytest.mark.parametrize(("fault", "reason"), [
    ("other", "faulty_classifiers:refusing gives another network at sigma 0.25 here than where the run was started"),
    ("import", "faulty_classifiers:refusing failed: ImportError: no such library on this node"),
    ("exit", "died"),
])  # fmt: skip
def test_where_no_worker_can_start_the_run_ends_with_the_reason(pool, faults, tmp_path, monkeypatch, fault, reason):
    monkeypatch.setattr(ray_crew, "START_DEATHS", 2)
    monkeypatch.setattr(ray_crew, "START_REFUSALS", 2)
    faults.tell(refuse=f"{fault} everywhere")
    with pytest.raises(RunFailure, match="no worker can start") as ended:
        run(recipe(tmp_path, function="refusing"), pool)
    assert reason in str(ended.value)
    assert "\n" not in str(ended.value)


def test_a_classifier_that_only_later_does_not_load_ends_the_run_and_what_was_counted_stays(
    pool, faults, undisturbed, tmp_path
):
    faults.tell(refuse="other")
    with pytest.raises(RunFailure, match=r"every image tried at sigma 0\.5 failed.* gives another network"):
        run(recipe(tmp_path, function="refusing"), pool)
    faults.tell(refuse="")
    faults.forget()
    (level, _) = run(recipe(tmp_path, function="net"), pool).levels
    assert not level.failed
    assert stored(tmp_path) == undisturbed


def test_where_every_node_goes_the_run_says_that_it_waits_and_where_its_own_goes_it_ends_and_can_go_on(
    cluster, faults, undisturbed, tmp_path
):
    """The last test: it leaves no cluster. Where its raylet dies, Ray may end the driver before the driver ends itself,
    so it is a process of its own."""
    faults.forget()
    faults.tell(slow="0.05")
    errors = tmp_path / "errors"
    with open(errors, "w") as file, driver_of_its_own(cluster.address, tmp_path / "run", file) as driver:
        wait_for(lambda: len(faults.passes()) == 2)
        for node in [*cluster.worker_nodes]:
            node.all_processes["raylet"][0].process.kill()
        waits = "no worker is left, and Ray has no room for one: waiting for nodes to join"
        wait_for(lambda: waits in errors.read_text())
        cluster.head_node.all_processes["raylet"][0].process.kill()
        code = driver.wait(timeout=90)
    told = errors.read_text()
    assert code != 0
    assert "Traceback" not in told
    assert "RunFailure" not in told or re.search(r"the raylet of this machine, a node of .*, died", told)
    held = stored(tmp_path / "run")
    assert 0 < len(held) < len(undisturbed)
    assert set(held) < set(undisturbed)
    faults.forget()
    run(recipe(tmp_path / "run"))
    assert stored(tmp_path / "run") == undisturbed


DRIVER = """
import os, sys
import test_pool_faults as here
here.ray_crew.IDLE_SECONDS = 0.5
here.Faults(here.Path(os.environ["FAULTS_FOLDER"])).tell(driver=str(os.getpid()))
try:
    here.run(here.recipe(here.Path(sys.argv[2])), here.RayPool(address=sys.argv[1], device="cpu"))
except here.RunFailure as error:
    sys.exit(f"RunFailure: {error}")
"""


@contextmanager
def driver_of_its_own(address: str, output: Path, errors: IO[str]) -> Iterator[subprocess.Popen]:
    """`run` as another process; it is killed at the end of the block if it still lives."""
    places = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parents[1])])
    environment = os.environ | {"PYTHONPATH": places}
    words = [sys.executable, "-c", DRIVER, address, str(output)]
    driver = subprocess.Popen(words, env=environment, stdout=errors, stderr=errors)
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()
