"""Slurm's own commands, asked and read. Nothing here knows of runs."""

import shutil
import subprocess

from rrcm_dist.errors import InvalidInput, RunFailure

ANSWER_SECONDS = 60
LIVE_STATES = {
    *("PENDING", "CONFIGURING", "POWER_UP_NODE", "RUNNING", "RESIZING", "SIGNALING", "STAGE_OUT", "COMPLETING"),
    *("SUSPENDED", "STOPPED", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
}
"""States of a job that runs or will run."""


def require_slurm() -> None:
    """Raise `InvalidInput` unless jobs can be submitted from this machine."""
    missing = [name for name in ("sbatch", "squeue", "scontrol", "scancel") if shutil.which(name) is None]
    if missing:
        raise InvalidInput(
            f"there is no Slurm on this machine ({', '.join(missing)} not on PATH): "
            "run this on a login node of the cluster, or choose another backend"
        )


def ask(*command: str) -> str | None:
    """What the command prints, stripped; None where it is not installed, fails or does not answer."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def tell(*command: str) -> None:
    """Run a command that must succeed. Raises `RunFailure` with what it said otherwise."""
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True)
    except subprocess.CalledProcessError as error:
        raise RunFailure(f"`{' '.join(command)}` failed: {(error.stderr or error.stdout).strip()}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunFailure(f"`{' '.join(command)}` failed: {error}") from None


def show(kind: str, name: str) -> dict[str, str]:
    """Fields of a job or node as `scontrol show` has them; empty where the controller does not know it or is silent."""
    text = ask("scontrol", "--oneliner", "show", kind, name) or ""
    return dict(field.split("=", 1) for field in text.split() if "=" in field)


def host_names(node_list: str) -> list[str]:
    """'node[1-2]' → node1, node2."""
    return (ask("scontrol", "show", "hostnames", node_list) or node_list).split()


def queue_state(job: str) -> tuple[str, str] | None:
    """(state, reason) of a job in the queue, such as ('PENDING', 'Priority'); None once Slurm has forgotten it.

    Raises `RunFailure` where the controller does not answer, because then nothing is known.
    """
    return next(iter(queue_states(job)), None)


def is_queued(job: str) -> bool:
    """Whether a job, or any task of an array, runs or will run. Raises `RunFailure` as `queue_state` does."""
    return any(state in LIVE_STATES for state, _ in queue_states(job))


def queue_states(job: str) -> list[tuple[str, str]]:
    """`queue_state` of a job, or of each task of an array."""
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%T|%r"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except FileNotFoundError:
        raise RunFailure("there is no Slurm on this machine (squeue is not on PATH)") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunFailure(f"squeue does not answer: {error}") from None
    if answer.returncode and "Invalid job id" not in answer.stderr:
        raise RunFailure(f"squeue does not answer: {' '.join(answer.stderr.splitlines()[-1:])}")
    lines = answer.stdout.split("\n") if answer.returncode == 0 else []
    return [(state, reason) for state, _, reason in (line.partition("|") for line in lines if line.strip())]


def accounted_state(job: str) -> str | None:
    """State of a job's last life in the accounting, such as 'COMPLETED'; None without sacct, or while it lags."""
    states = (ask("sacct", "-n", "-X", "-P", "-o", "State", "-j", job) or "").split()
    return states[0] if states else None
