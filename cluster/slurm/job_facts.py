"""What Slurm knows of a job and its nodes, in our words."""

from datetime import datetime

from cluster.slurm.history import Cause
from cluster.slurm.tools import host_names, show

ENDS = {
    "CANCELLED": Cause.CANCELLED,
    "TIMEOUT": Cause.TIME_LIMIT,
    "NODE_FAIL": Cause.NODE_LOST,
    "PREEMPTED": Cause.PREEMPTED,
}
SILENT = ("DOWN", "NOT_RESPONDING", "FAIL")


def end_by_slurm(job: str) -> tuple[Cause, str]:
    """(cause, detail) of the end that Slurm has just begun to bring about; the queue, where it is not told."""
    fields = show("job", job)
    state = fields.get("JobState", "")
    detail = f"Slurm says {state} {fields.get('Reason', '')}".strip()
    if cause := ENDS.get(state):
        return cause, detail
    if any(_node_is_silent(name) for name in host_names(fields.get("NodeList", "") or "")):
        return Cause.NODE_LOST, detail
    if fields.get("PreemptTime", "None") not in ("None", "Unknown"):
        return Cause.PREEMPTED, detail
    return Cause.REQUEUED, detail


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


def _node_is_silent(name: str) -> bool:
    return _silent(show("node", name))


def _silent(fields: dict[str, str]) -> bool:
    return any(word in fields.get("State", "") for word in SILENT)


def _later(local_time: str | None, than: datetime) -> bool:
    try:
        return datetime.fromisoformat(local_time or "").astimezone() > than
    except ValueError:  # "None", "Unknown"
        return False
