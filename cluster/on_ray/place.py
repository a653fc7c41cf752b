"""A job as its Ray cluster knows it."""

import os
from pathlib import Path
from typing import Any

from cluster.on_ray.jobs_api import ADDRESS, RUN, NoCluster, RayCluster
from cluster.record.history import History
from rrcm_dist.errors import InvalidInput, RunFailure

LIVE_STATES = {"PENDING", "RUNNING"}
HERE = "http://127.0.0.1:8265"


class RayPlace:
    """By the dashboard's jobs."""

    def __init__(self, run: Path, submission: dict[str, Any]) -> None:
        self._run, self._job, self._trains = run, str(submission["job"]), submission["kind"] != "certify"
        self._address = str(submission["site"]["address"])

    def state(self) -> tuple[str, str]:
        """Ray's word; while the job waits for room or after it failed, the reason."""
        info = RayCluster(self._address).job(self._job)
        if info is None:
            return "", f"the Ray cluster at {self._address} has forgotten the job, or is another one by now"
        if info.state == "FAILED":
            return info.state, (info.message.strip().splitlines() or [""])[-1]
        if info.state == "RUNNING" and self._trains and not self._lives():
            return info.state, "waits for room on the cluster"
        return info.state, ""

    def is_live(self) -> bool:
        """Where no cluster is any more, nothing of it lives."""
        try:
            return self.state()[0] in LIVE_STATES
        except NoCluster:
            return False

    def cancel(self) -> None:
        """As `ray job stop`."""
        RayCluster(self._address).stop(self._job)

    def log(self) -> bytes:
        """Of the job's driver; the cluster keeps it."""
        try:
            return RayCluster(self._address).log(self._job).encode()
        except RunFailure:
            return b""

    def _lives(self) -> bool:
        """Whether ranks run."""
        return any(life.cause is None and life.job == self._job for life in History(self._run).lives())


def folder_of_job(job: str) -> Path:
    """Run folder of a job of ours by its submission id, on the cluster of RAY_API_SERVER_ADDRESS or on this machine.

    Raises `InvalidInput` for any other.
    """
    address = os.environ.get(ADDRESS, HERE)
    info = RayCluster(address).job(job)
    if info is None:
        raise InvalidInput(
            f"the Ray cluster at {address} knows no job {job}: name the run folder, or another cluster in {ADDRESS}"
        )
    if RUN not in info.metadata:
        raise InvalidInput(f"job {job} is not a run of ours: its metadata have no {RUN}")
    return Path(info.metadata[RUN])
