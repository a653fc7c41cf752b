"""What Slurm knows of a job and its nodes, in our words."""

import re
import time
from datetime import datetime, timedelta
from pathlib import Path

from cluster.record.history import Cause
from cluster.site import SLURM_EARLY_SECONDS
from cluster.slurm.tools import host_names, show

SAYS = re.compile(r"\*\*\* JOB \d+ ON \S+ CANCELLED AT \S+(?: DUE TO ([A-Z ]+))?")
"""What Slurm writes into a job's log before it ends the job; no reason: by scancel."""
REASONS = {
    "TIME LIMIT": Cause.TIME_LIMIT,
    "PREEMPTION": Cause.PREEMPTED,
    "JOB REQUEUE": Cause.REQUEUED,
    "NODE FAILURE": Cause.NODE_LOST,
}
SAYS_SECONDS, POLL_SECONDS = 2.0, 0.1
SILENT = ("DOWN", "NOT_RESPONDING", "FAIL")


def end_by_slurm(log: Path, since: int) -> tuple[Cause, str]:
    """(cause, detail) of the end that Slurm has just begun to bring about, from the job's log.

    The job's state does not say: it is COMPLETING, whatever the cause.

    Args:
        log: of the job, in all its lives.
        since: size of the log when this life began.
    """
    deadline = time.monotonic() + SAYS_SECONDS
    while time.monotonic() < deadline:
        with open(log, "rb") as file:
            file.seek(since)
            said = SAYS.search(file.read().decode(errors="replace"))
        if said:
            reason = (said[1] or "").strip()
            return (REASONS.get(reason, Cause.REQUEUED), f"Slurm: {reason}") if reason else (Cause.CANCELLED, "")
        time.sleep(POLL_SECONDS)
    return Cause.REQUEUED, "Slurm has ended it and not said why"


def why_asked(job: str, seconds_before_limit: int) -> tuple[Cause, str]:
    """(cause, detail) of the end that a job was asked for while it may still run."""
    fields = show("job", job)
    if _preempted(fields):
        return Cause.PREEMPTED, "with time to end"
    soon = datetime.now().astimezone() + timedelta(seconds=seconds_before_limit + SLURM_EARLY_SECONDS)
    if "EndTime" in fields and not _later(fields["EndTime"], soon):
        return Cause.TIME_LIMIT, ""
    return Cause.REQUEUED, "somebody asked it to end by a signal"


def lost_nodes(node_list: str, since: datetime) -> list[str]:
    """Nodes that are silent, or have started anew since then."""
    lost = []
    for name in host_names(node_list):
        fields = show("node", name)
        if _silent(fields):
            lost.append(f"{name} is {fields['State']}")
        elif any(_later(fields.get(key), since) for key in ("BootTime", "SlurmdStartTime")):
            lost.append(f"{name} has started anew")
    return lost


def node_address(name: str) -> str:
    """Where a node is reached; names need not resolve everywhere."""
    return show("node", name).get("NodeAddr", name)


def _preempted(fields: dict[str, str]) -> bool:
    return fields.get("PreemptTime", "None") not in ("None", "Unknown")


def _silent(fields: dict[str, str]) -> bool:
    return any(word in fields.get("State", "") for word in SILENT)


def _later(local_time: str | None, than: datetime) -> bool:
    try:
        return datetime.fromisoformat(local_time or "").astimezone() > than
    except ValueError:  # "None", "Unknown"
        return False
