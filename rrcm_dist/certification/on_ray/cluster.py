"""Ray for as long as a certification lasts: one of its own on this machine, or a cluster that is already there.

An embedded Ray is private to its process. All it listens on is bound to 127.0.0.1: GCS, raylet, object manager, agents,
workers, dashboard and metrics; all but the three metrics ports ask for a token of its own (so measured with Ray 2.60 on
Linux; the tests look at every port). It never touches ~/.ray, /tmp/ray or another Ray of the same host. It ends with
its process, killed or not; after SIGKILL the workers take 2 s, two agents a minute, and the next run sweeps the folder:

    /tmp/rrcm-ray-XXXXXXXX/         for this user alone; gone with the run
        token                       what the dashboard asks for
        ray/session_latest/logs/    Ray's own logs
    /tmp/rrcm-ray-XXXXXXXX.json     link to the list of metrics ports, for Prometheus; gone with the run
"""

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rrcm_dist.certification.on_ray.address import OF_ANOTHER_RAY, check_cluster
from rrcm_dist.certification.on_ray.folder import RAY_FOLDER, private_folder
from rrcm_dist.errors import INTERRUPTED, InvalidInput, RunFailure

MOST_OBJECT_STORE_BYTES = 4 * 2**30

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayFacts:
    """The Ray that a run works on."""

    address: str
    """HOST:PORT of its GCS: what `ray start --address` and `ray status --address` take."""
    dashboard: str | None
    """URL of the dashboard; None where it does not run (it needs `ray[default]`)."""
    embedded: bool
    """True: started by this process and gone with it."""
    token_file: Path | None
    """File with the token that the dashboard asks for; None where the cluster has its own."""
    metrics: Path | None
    """List of the metrics ports for Prometheus, which a dashboard keeps up to date; None on a cluster, whose head node
    has it."""

    def describe(self) -> str:
        """One line for the user: where to look, and where the token is."""
        if self.dashboard is None:
            return f"Ray at {self.address}, without a dashboard"
        token = f"the content of {self.token_file}" if self.token_file else "the cluster's, if it has one"
        return f"Ray dashboard: {self.dashboard} (token: {token})"


@contextmanager
def ray_cluster(address: str | None = None, cpus: int | None = None, dashboard: bool = True) -> Iterator[RayFacts]:
    """A connected Ray within the block; disconnected after it, and gone if it was started here.

    `address` None starts a Ray on this machine with `cpus` logical CPUs (None: its cores) and all its GPUs; `HOST:PORT`
    or `auto` joins a running cluster, one of whose nodes this machine must be. To be called in the main thread: an
    embedded Ray is killed by the kernel when the thread that started it dies, however it dies.

    Raises `InvalidInput` where Ray is not installed or the address cannot be one, and `RunFailure` where Ray does not
    start, or the cluster does not answer in time (`address.ANSWER_SECONDS` a step), refuses the token, or runs
    other versions of Ray or Python.
    """
    ray = _import_ray()
    assert not ray.is_initialized(), "one Ray at a time in a process"
    with _environment_restored(), _signals_restored(), _pages_kept_off_the_terminal(ray):
        connected = _embedded(ray, cpus, dashboard) if address is None else _joined(ray, address)
        with connected as facts:
            _end_quietly()
            yield facts


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError as e:
        raise InvalidInput(f"Ray is not installed ({e}): pip install 'rrcm-dist[cluster]'") from None
    return ray


@contextmanager
def _embedded(ray: ModuleType, cpus: int | None, dashboard: bool) -> Iterator[RayFacts]:
    with private_folder() as folder:
        token_file = folder / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(secrets.token_hex(32))
        _set_private_environment(ray, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)})
        try:
            # One folder deeper, as Ray lets everybody write into its own.
            context = _start(ray, folder / RAY_FOLDER, cpus, dashboard)
            url = f"http://{context.dashboard_url}" if context.dashboard_url else None
            with _metrics_link(folder) if url else contextlib.nullcontext() as metrics:
                yield RayFacts(ray.get_runtime_context().gcs_address, url, True, token_file, metrics)
        finally:
            ray.shutdown()


def _start(ray: ModuleType, folder: Path, cpus: int | None, dashboard: bool) -> Any:
    import psutil  # a part of Ray's

    memory = psutil.virtual_memory().total
    before = set(psutil.Process().children(recursive=True))
    try:
        return ray.init(
            address="local", num_cpus=cpus, include_dashboard=None if dashboard else False, _temp_dir=str(folder),
            object_store_memory=min(MOST_OBJECT_STORE_BYTES, memory // 8), log_to_driver=False, logging_level="ERROR",
        )  # fmt: skip
    except BaseException as e:
        for process in set(psutil.Process().children(recursive=True)) - before:  # Ray forgets them if interrupted
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if not isinstance(e, Exception):
            raise
        reason = str(e).strip().split("\n")[0] or type(e).__name__
        raise RunFailure(
            f"Ray did not start on this machine: {reason}; `df -h /tmp /dev/shm` and `free -g` show whether it had room"
        ) from e


@contextmanager
def _joined(ray: ModuleType, address: str) -> Iterator[RayFacts]:
    address = check_cluster(ray, address)
    _reread_authentication()
    try:
        try:
            context = ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except Exception as e:
            reason = str(e).strip().split("\n")[0] or type(e).__name__
            raise RunFailure(f"the Ray cluster at {address} answers, but cannot be joined: {reason}") from e
        url = f"http://{context.dashboard_url}" if context.dashboard_url else None
        yield RayFacts(ray.get_runtime_context().gcs_address, url, False, None, None)
    finally:
        ray.shutdown()


def _set_private_environment(ray: ModuleType, token: Mapping[str, str]) -> None:
    """What makes an embedded Ray quiet, bound to 127.0.0.1 and blind to every other Ray; its processes inherit it."""
    for name in OF_ANOTHER_RAY:
        os.environ.pop(name, None)
    os.environ.update(token)
    os.environ |= {
        # Off, the node's own address is 127.0.0.1, on Linux too, and Ray binds nothing to another interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` makes Ray pack the working folder
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning at every start
        # Fixed ports unless told; of two Rays on one host, the second would go without.
        "AUTOSCALER_METRIC_PORT": str(_free_port()),
        "DASHBOARD_METRIC_PORT": str(_free_port()),
    }
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False  # read from the environment when Ray was imported
    # No argument of `ray.init` reaches the agents' port, fixed too; doing without takes 3 s and costs the log viewer.
    start = ray._private.parameter.RayParams.__init__
    fixed = ray._private.ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
    start.__defaults__ = tuple(None if default == fixed else default for default in start.__defaults__)
    _reread_authentication()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _reread_authentication() -> None:
    """Ray reads the mode and the token once a process."""
    from ray import _raylet

    _raylet.Config.initialize("")  # type: ignore[attr-defined]
    _raylet.AuthenticationTokenLoader.instance().reset_cache()  # type: ignore[attr-defined]


@contextmanager
def _environment_restored() -> Iterator[None]:
    import ray

    environment, clusters = dict(os.environ), ray._private.ray_constants.ENABLE_RAY_CLUSTER
    start = ray._private.parameter.RayParams.__init__
    defaults = start.__defaults__
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ |= environment
        ray._private.ray_constants.ENABLE_RAY_CLUSTER = clusters
        start.__defaults__ = defaults
        _reread_authentication()


def _end_quietly() -> None:
    """SIGTERM ends as Ctrl-C does; Ray's own handlers, set when it connects, print addresses in its binaries first."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(INTERRUPTED))


@contextmanager
def _signals_restored() -> Iterator[None]:
    """Ray makes SIGTERM a SystemExit, which suits a `with` block, but leaves it so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _pages_kept_off_the_terminal(ray: ModuleType) -> Iterator[None]:
    """Ray prints the last page of a dead raylet's log to standard output, whatever `log_to_driver` says.

    It stays in Ray's logs; which workers are gone, the crew tells.
    """
    worker = ray._private.worker
    printing = worker.print_to_stdstream
    worker.print_to_stdstream = lambda data, ignore_prefix: log.debug("Ray: %s", "\n".join(data["lines"]))
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


@contextmanager
def _metrics_link(folder: Path) -> Iterator[Path]:
    """Prometheus takes `*` in the last part of a path only: a link beside the folder keeps its configuration fixed."""
    link = folder.with_name(f"{folder.name}.json")
    link.symlink_to(folder / RAY_FOLDER / "prom_metrics_service_discovery.json")
    try:
        yield link
    finally:
        with contextlib.suppress(OSError):
            link.unlink()
