"""Hosts of their own on one machine: network, host name, processes, mounts and shared memory apart; files shared.

    this machine ── rrcmK ─┐
                         head (holds the bridge)
    node1 ── eth0 ─────────┤
    node2 ── eth0 ─────────┘        10.77.K.0/24

All of it lives in namespaces that end with their first process, so nothing has to be undone: neither a process nor a
network interface outlives the session, even one that is killed.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_INIT = Path(__file__).with_name("slurm_host_init.py")
_UNSHARE = ("unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child")
_NETWORKS = 256


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Return as soon as `condition()` is true; TimeoutError, which says `what` did not happen, after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


class Host:
    """A host named `name`, alive from its making until `die()`, or until the process that made it ends."""

    def __init__(self, name: str):
        self.name = name
        self._daemons: list[Daemon] = []
        self._unshare = subprocess.Popen(
            [*_UNSHARE, sys.executable, "-I", "-S", str(_INIT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._unshare.stdout is not None
        if self._unshare.stdout.readline() != "ready\n":
            raise RuntimeError(f"no namespaces for host {name}: {self._unshare.communicate()[1]}")
        self.pid = _children(self._unshare.pid)[0]
        self._namespace = os.readlink(f"/proc/{self.pid}/ns/pid")
        self.call("hostname", name)
        self.call("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")
        self.call("ip", "link", "set", "lo", "up")

    def inside(self, *command: str) -> list[str]:
        """`command` as a command that runs on this host."""
        return [
            *("nsenter", f"--target={self.pid}", "--net", "--uts", "--ipc", "--mount", "--pid", f"--wd={os.getcwd()}"),
            *command,
        ]

    def call(self, *command: str) -> None:
        """Run `command` on this host; RuntimeError, with what it said, where it fails."""
        call(*self.inside(*command))

    def start(self, *command: str, log: Path, environment: Mapping[str, str] | None = None) -> "Daemon":
        """Start `command`, which stays in the foreground, as a daemon of this host."""
        daemon = Daemon(self.inside(*command), log, environment)
        self._daemons.append(daemon)
        return daemon

    def processes(self) -> list[int]:
        """Ids, as this machine counts them, of all processes that live on this host."""
        return [pid for pid in _all_processes() if _pid_namespace(pid) == self._namespace]

    @property
    def alive(self) -> bool:
        return self._unshare.poll() is None

    def die(self) -> None:
        """Kill all that runs on this host at once, and return when all of it is gone."""
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)  # process 1 there: the kernel kills all others
        self._unshare.communicate()
        for daemon in self._daemons:
            daemon.wait()
        wait_for(lambda: not self.processes(), 20, f"processes of host {self.name} end")


class Daemon:
    """A process on a host."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str] | None):
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Id of the daemon itself, as this machine counts."""
        return _children(self._process.pid)[0]  # the process is nsenter, which waits for it

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the daemon, not its children, a signal and wait for its end."""
        if self.alive:
            os.kill(self.pid, number)
        self.wait()

    def wait(self) -> None:
        """Return when it has ended."""
        self._process.wait(20)


class Network:
    """A head host with a bridge, which this machine reaches as 10.77.K.253 under the first K that nobody uses."""

    def __init__(self) -> None:
        self.head = Host("head")
        try:
            self.interface, self._prefix = self._claim()
            _as_head = self.head.call
            _as_head("ip", "link", "add", "bridge", "type", "bridge")
            _as_head("ip", "address", "add", f"{self.address(254)}/24", "dev", "bridge")
            _as_head("ip", "link", "set", "bridge", "up")
            self._plug_in("here")
            call("ip", "address", "add", f"{self.address(253)}/24", "dev", self.interface)
            call("ip", "link", "set", self.interface, "up")
        except BaseException:
            self.head.die()
            raise

    def _claim(self) -> tuple[str, str]:
        for k in range(_NETWORKS):
            name, prefix = f"rrcm{k}", f"10.77.{k}"
            routes = subprocess.run(["ip", "route", "show", f"{prefix}.0/24"], capture_output=True).stdout
            link = ["ip", "link", "add", name, "type", "veth", "peer", "name", "here", "netns", str(self.head.pid)]
            if not routes and subprocess.run(link, capture_output=True).returncode == 0:
                return name, prefix
        raise RuntimeError(f"no network interface rrcm0 … rrcm{_NETWORKS - 1} could be made: `{' '.join(link)}`")

    def _plug_in(self, end: str) -> None:
        self.head.call("ip", "link", "set", end, "master", "bridge", "up")

    def address(self, number: int) -> str:
        """Address of host `number` of this network; the head is 254, this machine 253."""
        return f"{self._prefix}.{number}"

    def add(self, name: str, number: int, hosts_file: Path) -> Host:
        """A new host on this network, whose /etc/hosts is `hosts_file`."""
        host = Host(name)
        host.call("mount", "--bind", str(hosts_file), "/etc/hosts")
        ends = ("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        call("nsenter", f"--target={self.head.pid}", "--net", *ends)  # our process ids, the head's network
        host.call("ip", "address", "add", f"{self.address(number)}/24", "dev", "eth0")
        host.call("ip", "link", "set", "eth0", "up")
        self._plug_in(name)
        return host

    def cut(self, name: str) -> None:
        """Pull the cable of a host: what it sends is lost from now on, even its connections' last words."""
        self.head.call("ip", "link", "delete", name)

    def remove(self) -> None:
        """End the head; return when its interface is gone from this machine."""
        self.head.die()
        wait_for(lambda: not Path(f"/sys/class/net/{self.interface}").exists(), 20, f"{self.interface} goes away")


def call(*command: str) -> str:
    """What `command` prints; RuntimeError, with what it said, where it fails."""
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` ended with {result.returncode}: {result.stderr or result.stdout}")
    return result.stdout


def why_no_hosts() -> str | None:
    """What this machine lacks to make hosts, or None."""
    if os.geteuid() != 0:
        return "a cluster of namespaces needs root"
    if missing := [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]:
        return f"not installed: {', '.join(missing)} (Debian packages util-linux and iproute2)"
    trial = subprocess.run([*_UNSHARE, "ip", "link", "add", "trial", "type", "bridge"], capture_output=True, text=True)
    return f"this machine allows no namespaces: {trial.stderr.strip()}" if trial.returncode != 0 else None


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _pid_namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:  # it ended meanwhile, or is a zombie
        return None
