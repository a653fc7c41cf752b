"""The daemons of the test cluster, in the foreground, each on the host that it belongs to."""

import secrets
import shutil
import subprocess
from pathlib import Path

from slurm_configuration import ACCOUNT, DATABASE_PORT
from slurm_hosts import Daemon, Host, call, wait_for

_PROGRAMS = {
    "slurm-wlm": ["slurmctld", "slurmd", "srun", "sbatch", "scontrol"],
    "munge": ["munged"],
    "slurmdbd": ["slurmdbd"],
    "mariadb-server": ["mariadbd", "mariadb-install-db"],
}
_START_SECONDS = 60


def why_no_slurm() -> str | None:
    """Which packages this machine lacks, or None."""
    missing = [package for package, names in _PROGRAMS.items() if not all(shutil.which(name) for name in names)]
    return f"not installed, or not on PATH: Debian packages {' '.join(missing)}" if missing else None


def start_munged(head: Host, folder: Path) -> Daemon:
    """Authentication for every host, by a socket in the folder that all hosts share."""
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    daemon = head.start(
        *("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"),
        *(f"--pid-file={folder}/munged.pid", f"--log-file={folder}/log/munged.log", f"--seed-file={folder}/munge.seed"),
        log=folder / "log/munged.out",
    )
    wait_for((folder / "munge.socket").exists, _START_SECONDS, "munged starts")
    return daemon


def start_accounting(head: Host, folder: Path, environment: dict[str, str]) -> None:
    """A database, Slurm's accounting daemon, and one account that root may use."""
    data, temporary, socket = folder / "database", folder / "database-temporary", folder / "mariadb.socket"
    temporary.mkdir()  # its files are named by process id: in /tmp, those of two clusters would meet
    # Data of tests need not survive a power failure: nothing is flushed.
    options = ["--no-defaults", "--user=root", f"--datadir={data}", f"--tmpdir={temporary}"]
    options += ["--innodb-log-file-size=4M", "--innodb-flush-method=nosync", "--innodb-doublewrite=0"]
    head.call("mariadb-install-db", *options, "--skip-test-db", "--auth-root-authentication-method=normal")
    head.start(
        *("mariadbd", *options, f"--socket={socket}", f"--pid-file={folder}/mariadb.pid", "--bind-address=127.0.0.1"),
        *(f"--port={DATABASE_PORT}", "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0"),
        *("--innodb-lock-wait-timeout=900",),  # slurmdbd demands it
        log=folder / "log/mariadb.log",
    )
    client = ("mariadb", "--no-defaults", f"--socket={socket}", "--execute")
    wait_for(lambda: _succeeds(*client, "select 1"), _START_SECONDS, "mariadb starts")
    call(
        *client,
        "create database slurm; create user slurm@'127.0.0.1' identified by 'slurm';"
        "create user slurm@localhost identified by 'slurm';"
        "grant all on slurm.* to slurm@'127.0.0.1'; grant all on slurm.* to slurm@localhost",
    )
    head.start("slurmdbd", "-D", log=folder / "log/slurmdbd.out", environment=environment)
    wait_for(lambda: _succeeds("sacctmgr", "list", "cluster", environment=environment), _START_SECONDS, "slurmdbd")
    for what in ("cluster rrcm", f"account {ACCOUNT} cluster=rrcm", f"user root account={ACCOUNT}"):
        _sacctmgr_add(what, environment)


def start_slurmctld(head: Host, folder: Path, environment: dict[str, str]) -> Daemon:
    """The controller, answering."""
    daemon = head.start("slurmctld", "-D", log=folder / "log/slurmctld.out", environment=environment)
    answers = ("scontrol", "show", "config")
    wait_for(lambda: _succeeds(*answers, environment=environment), _START_SECONDS, "slurmctld starts")
    return daemon


def start_slurmd(node: Host, folder: Path, environment: dict[str, str]) -> Daemon:
    """The daemon of a node; it may still have to find the controller."""
    (folder / "spool" / node.name).mkdir(parents=True, exist_ok=True)
    return node.start(
        "slurmd", "-D", "-N", node.name, log=folder / f"log/slurmd.{node.name}.out", environment=environment
    )


def _sacctmgr_add(what: str, environment: dict[str, str]) -> None:
    command = ["sacctmgr", "--immediate", "add", *what.split()]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}`: {result.stdout}{result.stderr}")


def _succeeds(*command: str, environment: dict[str, str] | None = None) -> bool:
    return subprocess.run(command, capture_output=True, env=environment).returncode == 0
