"""Nodes of Ray that hang on the process that starts them: apart from every other, and gone with it."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ray_ports import asks_for_a_token

from cluster.ray_nodes.addresses import host_and_port, own_address, own_address_towards
from cluster.ray_nodes.facts import HeadFacts, HeadState, versions_here, write_token
from cluster.ray_nodes.node import NodeSettings, RayNode
from rrcm_dist.certification.on_ray.address import Token, nodes_alive
from rrcm_dist.certification.on_ray.folder import FOLDER_PREFIX
from rrcm_dist.errors import RunFailure

OWNER = """
import os, sys, time
from pathlib import Path
from cluster.ray_nodes.node import NodeSettings, RayNode

token_file = sys.argv[1]
head = RayNode(NodeSettings("127.0.0.1", token_file, 0, 0), os.environ)
while head.alive and not head.addresses:
    time.sleep(0.05)
worker = RayNode(NodeSettings("127.0.0.1", token_file, 3, 2, head.addresses.head), os.environ)
while worker.alive and not worker.addresses:
    time.sleep(0.05)
print(head.addresses.head, head.addresses.dashboard, flush=True)
sys.stdin.readline()
worker.stop()
head.stop()
print(*(f"{node.alive}" for node in (worker, head)), flush=True)
sys.stdin.readline()
"""


class Owner:
    """A process with a head and a worker of two GPUs, and with a token of their own."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        folder.mkdir()
        self.token = write_token(folder)
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(self.token)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"TMPDIR": str(temporary)}, cwd=Path(__file__).parents[3],
        )  # fmt: skip

    def line(self) -> list[str]:
        return self.process.stdout.readline().split()

    def go_on(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def listening(processes: list[psutil.Process]) -> list[int]:
    return [c.laddr.port for p in processes for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]


@pytest.fixture
def temporary():
    """A short place for folders, whose sockets have long names."""
    folder = Path(f"/tmp/rrcm-{os.getpid()}")
    folder.mkdir()
    yield folder
    folder.rmdir()  # it must be empty


@pytest.fixture
def owners(tmp_path, temporary):
    started = [Owner(tmp_path / name, temporary) for name in ("one", "other")]
    yield started
    for owner in started:
        processes = owner.descendants() if owner.process.poll() is None else []
        owner.process.kill()
        owner.process.wait()
        psutil.wait_procs(processes, timeout=20)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.exhaustive
def test_two_clusters_on_a_host_never_meet_and_end_with_those_who_started_them(owners, temporary):
    one, other = owners
    addresses = [owner.line()[0] for owner in (one, other)]
    assert len(list(temporary.glob(f"{FOLDER_PREFIX}*"))) == 4
    assert all(stat.S_IMODE(folder.stat().st_mode) == 0o700 for folder in temporary.iterdir())

    for owner, address in zip((one, other), addresses, strict=True):
        nodes = nodes_alive(address, Token(owner.token.read_text(), ""))
        assert sorted(dict(node.resources_total).get("GPU", 0) for node in nodes) == [0, 2]
        assert sorted(dict(node.resources_total).get("CPU", 0) for node in nodes) == [0, 3]
    with pytest.raises(RunFailure, match="refuses the token"):
        nodes_alive(addresses[0], Token(other.token.read_text(), ""))
    ports = [listening(owner.descendants()) for owner in (one, other)]
    assert all(len(of) > 12 for of in ports)
    assert not set(ports[0]) & set(ports[1])
    open_to_strangers = [port for port in ports[0] if not asks_for_a_token(port)]
    assert len(open_to_strangers) == 3  # metrics: of each node, and of the dashboard
    assert not {6379, 8265, 10001, 44217, 44227, 52365} & {*ports[0], *ports[1]}

    of_one, of_other = one.descendants(), other.descendants()
    one.go_on()
    assert one.line() == ["False", "False"]
    assert not [process for process in of_one if process.is_running()]
    assert all(process.is_running() for process in of_other)
    other.process.send_signal(signal.SIGKILL)
    start = time.monotonic()
    assert not psutil.wait_procs(of_other, timeout=20)[1], f"after {time.monotonic() - start:.0f} s"
    one.go_on()
    assert one.process.wait(10) == 0
    other.process.wait()


def test_the_facts_of_a_head_are_read_as_they_were_written(tmp_path):
    assert HeadFacts.read(tmp_path) is None
    facts = HeadFacts(HeadState.RUNNING, 3, "10.0.0.1:3333", "http://10.0.0.1:4444", "/token", versions_here())
    facts.write(tmp_path)
    assert HeadFacts.read(tmp_path) == facts
    assert versions_here()["Python"] == sys.version.split()[0]


def test_a_token_is_made_once_and_is_this_users_alone(tmp_path):
    token = write_token(tmp_path)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    text = token.read_text()
    assert len(text) == 64
    assert write_token(tmp_path).read_text() == text


def test_a_host_that_knows_itself_by_a_loopback_address_alone_finds_the_one_by_which_others_reach_it():
    known = {address.address for interface in psutil.net_if_addrs().values() for address in interface}
    by_others = {address for address in known if "." in address and not address.startswith("127.")}
    assert own_address("localhost") in (by_others or {"127.0.0.1"})
    assert own_address_towards("127.0.0.1", 9) == "127.0.0.1"
    assert host_and_port("10.0.0.1:3333") == ("10.0.0.1", 3333)


def test_a_node_that_has_ended_by_itself_can_be_stopped(tmp_path):
    settings = NodeSettings("127.0.0.1", str(tmp_path / "token"), cpus=0, gpus=0)
    node = RayNode(settings, os.environ | {"PYTHONHOME": str(tmp_path)})  # where there is no Python
    try:
        deadline = time.monotonic() + 60
        while node.alive and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not node.alive
        assert node.addresses is None
    finally:
        node.stop()
        node.stop()
    assert not node.alive
