"""A real Slurm on this machine: nodes that are hosts of their own, partitions that preempt, accounting."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from slurm_configuration import CGROUP_CONF, gres_conf, hosts_file, slurm_conf, slurmdbd_conf
from slurm_daemons import start_accounting, start_munged, start_slurmctld, start_slurmd
from slurm_hosts import Daemon, Host, Network, call, wait_for

_FOLDER_PREFIX = "slurm-rrcm-"
_NVIDIA_MAJOR = 195
_SMALL_DISK_MIB, _FILLER = 8, "filler"
_FINISHED = {"CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "PREEMPTED", "TIMEOUT"}


class SlurmCluster:
    """A cluster of hosts `node1` … `nodeN` and a `head`, up within `with`.

    This machine is its login node: Slurm's commands work here with `environment()`. All hosts share this machine's
    files, /tmp too, but not /dev/shm. `cpus`, `gpus` and `memory_mib` are each node's, as Slurm believes: the GPUs are
    device files without a device. Without `accounting` there is no sacct, and any account is taken.
    """

    def __init__(self, nodes: int = 2, cpus: int = 8, gpus: int = 8, memory_mib: int = 8000, accounting: bool = True):
        self.node_names = [f"node{number}" for number in range(1, nodes + 1)]
        self._cpus, self._gpus, self._memory_mib, self._accounting = cpus, gpus, memory_mib, accounting
        self._nodes: dict[str, Host] = {}
        self._slurmds: dict[str, Daemon] = {}

    def __enter__(self) -> "SlurmCluster":
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Bring the cluster up; return when every node is idle."""
        _remove_folders_of_ended_sessions()
        self.network = Network()
        # Paths of sockets have at most 107 bytes: a folder of pytest's may be too deep.
        self.folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir="/tmp"))
        (self.folder / "owner").symlink_to(f"{os.getpid()} {_start_time(os.getpid())}")
        self.small_disk.mkdir()
        call("mount", "-t", "tmpfs", "-o", f"size={_SMALL_DISK_MIB}m", "tmpfs", str(self.small_disk))
        try:
            self._write_configuration()
            start_munged(self.network.head, self.folder)
            if self._accounting:
                start_accounting(self.network.head, self.folder, self.environment())
            self.start_slurmctld()
            for name in self.node_names:
                self._boot(name)
            self.wait_until_idle(self.node_names)
        except BaseException as error:
            error.add_note(self.log_tails())
            self.down()
            raise

    def down(self) -> None:
        """Take down everything that `up` made, jobs and all; return when it is gone."""
        for node in self._nodes.values():
            node.die()
        self._nodes.clear()
        self.network.remove()
        _remove(self.folder)

    def environment(self) -> dict[str, str]:
        """Environment in which Slurm's commands mean this cluster."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return {**inherited, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def processes(self) -> dict[str, list[int]]:
        """Ids, as this machine counts them, of all that runs on each host."""
        return {host.name: host.processes() for host in (self.network.head, *self._nodes.values())}

    def host(self, name: str) -> Host:
        """A node that lives, to do things to."""
        return self._nodes[name]

    def log_tails(self, lines: int = 5) -> str:
        """The last lines of every daemon's log."""
        tails = {log.name: log.read_text(errors="replace").splitlines()[-lines:] for log in self.folder.glob("log/*")}
        return "\n".join("\n  ".join([f"{name}:", *tail]) for name, tail in sorted(tails.items()) if tail)

    def tidy(self) -> None:
        """Cancel all jobs and mend all hosts; return when every node is idle."""
        if not self._slurmctld.alive:
            self.start_slurmctld()
        self.run("scancel", "--user=root")
        for name in self.node_names:
            if name not in self._nodes:
                self._boot(name)
            elif not self._slurmds[name].alive:
                self.start_slurmd(name)
        self.wait_until_idle(self.node_names)

    # ---------------------------------------------------------------- what happens to clusters

    def kill_node(self, name: str) -> None:
        """A power failure: the node falls silent, without so much as closing its connections."""
        self.network.cut(name)
        self._nodes.pop(name).die()

    def start_node(self, name: str) -> None:
        """Power again: return when the node, empty, is idle."""
        self._boot(name)
        self.wait_until_idle([name])

    def restart_node(self, name: str) -> None:
        """Power fails and is back at once: the node comes back before it is missed."""
        self.kill_node(name)
        self._boot(name)

    def kill_slurmd(self, name: str) -> None:
        """Kill the node's daemon alone; the jobs' steps live on."""
        self._slurmds[name].kill()

    def start_slurmd(self, name: str) -> None:
        """Start the daemon on a node that lives."""
        self._slurmds[name] = start_slurmd(self._nodes[name], self.folder, self.environment())

    def kill_slurmctld(self) -> None:
        """Kill the controller; jobs run on."""
        self._slurmctld.kill()

    def start_slurmctld(self) -> None:
        """Start the controller from the state that it saved; return when it answers."""
        self._slurmctld = start_slurmctld(self.network.head, self.folder, self.environment())

    def requeue(self, job: int) -> None:
        """`scontrol requeue`, and no waiting time."""
        self.run("scontrol", "requeue", str(job))
        self.skip_requeue_delay(job)

    def skip_requeue_delay(self, job: int) -> None:
        """Let a requeued job start within seconds, instead of two minutes later, as Slurm wants it.

        Not within the second of its end: a node counts in whole seconds which life of a job it was told to kill.
        """
        self.wait_for_state(job, "PENDING")
        time.sleep(2)
        self.run("scontrol", "update", f"jobid={job}", "StartTime=now")

    @property
    def small_disk(self) -> Path:
        """A folder on a disk of its own, of a few MiB, which every host sees."""
        return self.folder / "small-disk"

    def fill_small_disk(self) -> None:
        """Leave no byte free there."""
        with open(self.small_disk / _FILLER, "wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def empty_small_disk(self) -> None:
        """Make room again."""
        (self.small_disk / _FILLER).unlink(missing_ok=True)

    # ---------------------------------------------------------------- what users do

    def run(self, *command: str, seconds: float = 60) -> str:
        """What a command says on the login node; CalledProcessError, with what it said, where it fails."""
        return self.try_to_run(*command, seconds=seconds, check=True).stdout

    def try_to_run(self, *command: str, seconds: float = 60, check: bool = False) -> subprocess.CompletedProcess[str]:
        """A command on the login node, which may fail."""
        return subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=check, env=self.environment()
        )

    def try_to_launch(self, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """`python -m cluster COMMAND` in `folder` on the login node, which may fail."""
        return subprocess.run(
            [sys.executable, "-m", "cluster", *command],
            capture_output=True, text=True, timeout=180, env=self.environment(), cwd=folder,
        )  # fmt: skip

    def launch(self, folder: Path, *command: str) -> str:
        """What such a command says; it must not fail."""
        done = self.try_to_launch(folder, *command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sbatch(self, script: str, *options: str) -> int:
        """Id of a job that runs `script`, a shell's."""
        path = Path(tempfile.mkstemp(dir=self.folder, prefix="job-", suffix=".sh")[1])
        path.write_text(f"#!/bin/bash\n{script}\n")
        return int(self.run("sbatch", "--parsable", f"--output={path}.log", "--open-mode=append", *options, str(path)))

    def job(self, job: int) -> dict[str, str]:
        """Slurm's fields of a job it remembers: JobState, Restarts, NodeList, …"""
        fields = self.run("scontrol", "--oneliner", "show", "job", str(job)).split()
        return dict(field.split("=", 1) for field in fields if "=" in field)

    def output(self, job: int) -> str:
        """What a job has written until now, in all its lives."""
        path = Path(self.job(job)["StdOut"])
        return path.read_text() if path.exists() else ""

    def sacct(self, job: int) -> str:
        """The state of a job in the accounting, which lags by seconds; empty where it is not yet there."""
        return self.run("sacct", "-n", "-X", "-P", "-o", "State", "-j", str(job)).strip()

    def node_states(self) -> dict[str, str]:
        """State of each node as sinfo puts it: "idle", "mixed", "down*", …"""
        lines = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)

    # ---------------------------------------------------------------- waiting

    def wait_for_state(self, job: int, *states: str, seconds: float = 60) -> None:
        """Return when the job is in one of `states`."""
        wait_for(lambda: self.job(job)["JobState"] in states, seconds, f"job {job} {' or '.join(states)}")

    def wait_for_end(self, job: int, seconds: float = 60) -> str:
        """The state in which the job ended, and stayed."""
        before = ""
        while True:
            self.wait_for_state(job, *_FINISHED, seconds=seconds)
            state = self.job(job)["JobState"]
            if state == before:
                return state
            before = state
            time.sleep(0.5)

    def wait_until_idle(self, names: Sequence[str], seconds: float = 60) -> None:
        """Return when these nodes have registered and run nothing."""
        wait_for(
            lambda: all(self.node_states()[name] == "idle" for name in names), seconds, f"idle: {', '.join(names)}"
        )

    def wait_until_saved(self, change: float | None = None, seconds: float = 20) -> None:
        """Return when the controller has saved a change of this moment, or of a time, which takes it some five seconds.

        A job that a controller started, and was killed before it saved, starts again: the new one knows it as waiting.
        """
        state, now = self.folder / "state/job_state", change or time.time()
        wait_for(lambda: state.exists() and state.stat().st_mtime > now, seconds, "slurmctld saves its state")

    # ---------------------------------------------------------------- inside

    def _write_configuration(self) -> None:
        for name in ("log", "state", "spool", "dev"):
            (self.folder / name).mkdir()
        devices = [self.folder / f"dev/nvidia{index}" for index in range(self._gpus)]
        for index, device in enumerate(devices):  # only of device files does Slurm make CUDA_VISIBLE_DEVICES
            os.mknod(device, 0o020666, os.makedev(_NVIDIA_MAJOR, index))
        addresses = {name: self.network.address(number) for number, name in enumerate(self.node_names, start=1)}
        addresses["head"] = self.network.address(254)
        texts = {
            "hosts": hosts_file(addresses),
            "slurm.conf": slurm_conf(
                self.folder, addresses, self._cpus, self._gpus, self._memory_mib, self._accounting
            ),
            "gres.conf": gres_conf(self.node_names, devices),
            "cgroup.conf": CGROUP_CONF,
            "slurmdbd.conf": slurmdbd_conf(self.folder),
        }
        for name, text in texts.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o600 if name == "slurmdbd.conf" else 0o644)

    def _boot(self, name: str) -> None:
        number = self.node_names.index(name) + 1
        self._nodes[name] = self.network.add(name, number, self.folder / "hosts")
        self.start_slurmd(name)


def _remove_folders_of_ended_sessions() -> None:
    """What a killed session leaves is its folder; all else went with it."""
    for folder in Path("/tmp").glob(f"{_FOLDER_PREFIX}*"):
        owner = folder / "owner"
        if owner.is_symlink():
            pid, start_time = os.readlink(owner).split()
            if _start_time(int(pid)) != start_time:
                _remove(folder, ignore_errors=True)


def _remove(folder: Path, ignore_errors: bool = False) -> None:
    subprocess.run(["umount", "--lazy", str(folder / "small-disk")], capture_output=True)
    shutil.rmtree(folder, ignore_errors=ignore_errors)


def _start_time(pid: int) -> str | None:
    """When a process started, in the kernel's ticks, to tell it from a later one of the same id; None if it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
