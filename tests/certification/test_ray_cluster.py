"""A Ray of one's own is private and leaves nothing behind; a cluster that cannot be joined is refused in a sentence."""

import contextlib
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from ray_ports import asks_for_a_token

from rrcm_dist.certification.on_ray import address as ray_address
from rrcm_dist.certification.on_ray import folder as module
from rrcm_dist.certification.on_ray.address import ANSWER_SECONDS, check_cluster
from rrcm_dist.certification.on_ray.cluster import RayFacts, ray_cluster
from rrcm_dist.errors import InvalidInput, RunFailure

CHILD = """
import sys, time
from rrcm_dist.certification.on_ray.cluster import ray_cluster
with ray_cluster(sys.argv[1] or None, dashboard=False) as facts:
    import ray
    nodes = [node["NodeManagerAddress"] for node in ray.nodes()]
    print(facts.address, facts.embedded, len(nodes), facts.token_file and facts.token_file.parent, flush=True)
    time.sleep(float(sys.argv[2]))
"""


ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


@pytest.fixture(scope="module")
def embedded() -> Iterator[RayFacts]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "192.0.2.1:6379")  # would be joined, in vain, by a bare ray.init()
        patch.setenv("RAY_AUTH_TOKEN", "that of another cluster")
        with ray_cluster() as facts:
            yield facts
        assert os.environ["RAY_ADDRESS"] == "192.0.2.1:6379"
        assert os.environ["RAY_AUTH_TOKEN"] == "that of another cluster"
    assert not facts.token_file.parent.exists()
    assert not facts.metrics.is_symlink()


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def refusal(address: str) -> str:
    import ray

    start = time.monotonic()
    with pytest.raises(RunFailure) as refused:
        check_cluster(ray, address)
    assert time.monotonic() - start < ANSWER_SECONDS + 2
    assert "\n" not in str(refused.value)
    return str(refused.value)


def child(address: str = "", seconds: float = 600, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, address, str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | environment, cwd=Path(__file__).parents[2], start_new_session=True,
    )  # fmt: skip


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=20)[1]


def listening_sockets() -> set[tuple[str, int]]:
    """Address and port of each, of this process and of all that it started."""
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in (psutil.Process(), *psutil.Process().children(recursive=True))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.mark.slow
def test_everything_an_embedded_ray_listens_on_is_a_loopback_address(embedded: RayFacts):
    listening = listening_sockets()
    assert len(listening) > 8  # GCS, raylet, object manager, agents, workers, dashboard, metrics
    ports = {port for _, port in listening}
    assert int(embedded.address.rpartition(":")[2]) in ports
    assert not ports & {6379, 44217, 44227, 52365}  # which another Ray on this host would want
    assert not [ip for ip, _ in listening if not ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback]


@pytest.mark.slow
def test_every_port_but_those_of_metrics_turns_a_stranger_away(embedded: RayFacts):
    deadline, metrics = time.monotonic() + 30, []
    while len(metrics) < 3 and time.monotonic() < deadline:  # Ray lists those of the head node after some seconds
        time.sleep(0.2)
        if embedded.metrics.exists():
            metrics = [int(t.rpartition(":")[2]) for t in json.loads(embedded.metrics.read_text())[0]["targets"]]
    assert sorted(port for _, port in listening_sockets() if not asks_for_a_token(port)) == sorted(metrics)


@pytest.mark.slow
def test_the_dashboard_asks_for_the_token_of_this_run(embedded: RayFacts):
    assert embedded.token_file.stat().st_mode & 0o077 == 0
    assert embedded.token_file.parent.stat().st_mode & 0o077 == 0
    request = urllib.request.Request(f"{embedded.dashboard}/nodes?view=summary")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=20)
    request.add_header("Authorization", f"Bearer {embedded.token_file.read_text()}")
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.status == 200
    assert str(embedded.token_file) in embedded.describe()
    assert embedded.dashboard in embedded.describe()


@pytest.mark.slow
def test_another_process_joins_with_the_token_alone(embedded: RayFacts):
    joining = child(embedded.address, 0, RAY_AUTH_TOKEN=embedded.token_file.read_text())
    out, err = joining.communicate(timeout=60)
    assert out.split() == [embedded.address, "False", "1", "None"], err
    assert err == ""


@pytest.mark.slow
def test_a_missing_and_a_wrong_token_are_told_apart(
    embedded: RayFacts, no_token: None, monkeypatch: pytest.MonkeyPatch
):
    assert "asks for a token: give it in RAY_AUTH_TOKEN" in refusal(embedded.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    assert "refuses the token of RAY_AUTH_TOKEN" in refusal(embedded.address)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "RAY_AUTH_MODE is set so that none is sent" in refusal(embedded.address)


@pytest.fixture(scope="module")
def others(embedded: RayFacts) -> Iterator[dict[signal.Signals, subprocess.Popen[str]]]:
    """Processes with a Ray of their own beside this one's, by what will end them."""
    started = {end: child() for end in ENDS}
    yield started
    for process in started.values():
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_another_ray_on_this_host_is_apart_and_dies_with_its_process(
    embedded: RayFacts, others: dict[signal.Signals, subprocess.Popen[str]], end: signal.Signals
):
    starting = others[end]
    address, _, nodes, folder = starting.stdout.readline().split()
    assert address != embedded.address
    assert nodes == "1"
    processes = psutil.Process(starting.pid).children(recursive=True)
    assert len(processes) > 3
    agents = [process for process in processes if process.name().endswith("Agent")]
    (os.killpg if end is signal.SIGINT else os.kill)(starting.pid, end)  # a terminal's Ctrl-C goes to the whole group
    assert starting.wait(timeout=30) != 0
    if end is signal.SIGKILL:  # nobody tells Ray's agents: they notice within a minute
        assert len(agents) == 2
        for agent in agents:
            agent.kill()
    assert gone(processes)
    assert Path(folder).exists() is (end is signal.SIGKILL)
    assert "Traceback" not in starting.stderr.read().replace("Traceback", "", end is signal.SIGINT)


@pytest.mark.slow
def test_a_start_that_is_interrupted_leaves_no_process():
    starting = child()
    while not psutil.Process(starting.pid).children():
        time.sleep(0.05)
    time.sleep(1.5)  # in the midst of it
    processes = psutil.Process(starting.pid).children(recursive=True)
    os.killpg(starting.pid, signal.SIGINT)
    out, err = starting.communicate(timeout=30)
    assert (out, err.splitlines()[-1]) == ("", "KeyboardInterrupt")
    assert gone([*processes, *in_session(starting.pid)])


def in_session(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(process.pid) == session:
                found.append(process)
    return found


@pytest.mark.slow
def test_the_folder_of_a_killed_run_is_swept_by_the_next_and_one_in_use_is_not(
    embedded: RayFacts, monkeypatch: pytest.MonkeyPatch
):
    left = embedded.token_file.parent.with_name(f"{module.FOLDER_PREFIX}left{os.getpid()}")
    left.mkdir()
    module._sweep(left.parent)
    assert left.exists()  # too young to say
    monkeypatch.setattr(module, "NOT_YET_LOCKED_SECONDS", 0)
    (left / module.HOST_FILE).write_text("another host that shares this /tmp")
    module._sweep(left.parent)
    assert left.exists()
    (left / module.HOST_FILE).unlink()
    module._sweep(left.parent)
    assert not left.exists()
    assert embedded.token_file.exists()


def test_where_nothing_listens_it_is_said_at_once(no_token: None):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, never listening
        port = closed.getsockname()[1]
        assert f"no Ray cluster listens at 127.0.0.1:{port} (connection refused)" in refusal(f"127.0.0.1:{port}")


def test_a_host_that_takes_connections_and_is_silent_is_given_up(no_token: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_address, "ANSWER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        message = refusal(f"localhost:{silent.getsockname()[1]}")
    assert "takes connections but did not answer within 1 s" in message


def test_something_else_than_ray_is_recognised(no_token: None):
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:

        def answer() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.close()

        threads.submit(answer)
        message = refusal(f"127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
    assert "is not the GCS of a Ray cluster" in message


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ({"ray_version": "2.9.9"}, r"runs Ray 2\.9\.9 and this process \d"),
        ({"python_version": "3.9.1"}, r"runs Python 3\.9\.1 and this process 3\."),
        ({}, "this machine is not a node of the Ray cluster .* run `ray start --address="),
    ],
)
def test_a_cluster_of_other_versions_or_on_other_machines_is_not_joined(
    no_token: None, versions: dict[str, str], told: str
):
    with gcs_that_says(versions) as address:
        assert re.search(told, refusal(address))


@pytest.mark.parametrize("address", ["somewhere", "host:", ":6379", "host:99999", "host:port", "ray://host:10001"])
def test_what_cannot_be_an_address_is_bad_input(address: str):
    import ray

    with pytest.raises(InvalidInput, match=re.escape(address)):
        check_cluster(ray, address)


def test_an_unknown_host_is_named(no_token: None):
    assert "'nowhere.invalid'" in refusal("nowhere.invalid:6379")


def test_a_ray_that_cannot_start_is_a_sentence():
    impossible = CHILD.replace("dashboard=False", "cpus=-1")
    starting = subprocess.run([sys.executable, "-c", impossible, ""], capture_output=True, text=True, timeout=60)
    assert "RunFailure: Ray did not start on this machine: Resource quantities must be" in starting.stderr


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInput, match=r"pip install 'rrcm-dist\[cluster\]'"), ray_cluster():
        pass


class gcs_that_says:  # noqa: N801 - reads as a phrase
    """A server of the GCS's two calls: no real cluster of another version can be had beside this one."""

    def __init__(self, versions: dict[str, str]) -> None:
        self._versions = versions

    def __enter__(self) -> str:
        import grpc
        from ray.core.generated import gcs_service_pb2 as gcs

        replies = {
            "InternalKVGcsService": (
                "InternalKVGet",
                gcs.InternalKVGetReply(value=json.dumps(self._versions).encode()),
            ),
            "NodeInfoGcsService": ("GetAllNodeInfo", gcs.GetAllNodeInfoReply()),
        }
        self._server = grpc.server(ThreadPoolExecutor(1))
        for service, (method, reply) in replies.items():
            handler = grpc.unary_unary_rpc_method_handler(
                lambda request, context, reply=reply: reply, response_serializer=lambda reply: reply.SerializeToString()
            )
            self._server.add_generic_rpc_handlers(
                [grpc.method_handlers_generic_handler(f"ray.rpc.{service}", {method: handler})]
            )
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return f"127.0.0.1:{port}"

    def __exit__(self, *error: object) -> None:
        self._server.stop(0)
