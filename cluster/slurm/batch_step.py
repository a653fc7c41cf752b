"""What batch steps share: they hear what Slurm asks of a job, know why it ends, and put it back into the queue."""

import os
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import FrameType

from cluster.record.history import Cause
from cluster.slurm.job_facts import end_by_slurm, why_asked
from cluster.slurm.tools import ask, tell
from rrcm_dist.errors import RunFailure

POLL_SECONDS = 0.2
REQUEUE_SECONDS = 600.0
"""For so long a silent controller is asked again."""
LEAVE_OUT_SECONDS = 20.0
"""For so long a requeued job is asked to leave nodes out, if Slurm lets the batch step live."""
LET_GO_SECONDS = 30.0
"""So long after it was requeued Slurm has to end this life; a job that ends first might count as completed."""


class BatchStep:
    """This process as the batch step of a job, or of a task of an array; to be made once, in the main thread."""

    def __init__(self) -> None:
        from submitit import JobEnvironment

        self.asked = False
        """USR2 has come: the limit is near, or something else wants the nodes."""
        self.terminated = False
        """SIGTERM has come: Slurm ends the job, with all that it has started, within seconds."""
        signal.signal(signal.SIGUSR2, self._make_way)
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGCONT, signal.SIG_IGN)
        self.job = os.environ["SLURM_JOB_ID"]
        self._log = JobEnvironment().paths.stdout
        self._log_start = self._log.stat().st_size

    def why(self, seconds_before_limit: int) -> tuple[Cause, str]:
        """(cause, detail) of the end that Slurm asks for or has begun to bring about."""
        if self.terminated:
            return end_by_slurm(self._log, self._log_start)
        return why_asked(self.job, seconds_before_limit)

    def requeue(self, otherwise: str, exclude: Sequence[str] = ()) -> None:
        """Put the job back into the queue, not to be given the nodes `exclude`; return when Slurm ends this life.

        Raises `RunFailure` where the controller stays silent; `otherwise` is the command that mends it.
        """
        self.terminated = False
        deadline = time.monotonic() + REQUEUE_SECONDS
        while ask("scontrol", "requeue", self.job) is None:
            if time.monotonic() > deadline:
                raise RunFailure(f"job {self.job} could not be requeued: `{otherwise}`")
            time.sleep(5)
        if exclude:
            self._leave_out(exclude)
        print(f"requeued at {datetime.now(UTC).isoformat(timespec='seconds')}", flush=True)
        deadline = time.monotonic() + LET_GO_SECONDS
        while not self.terminated and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _leave_out(self, nodes: Sequence[str]) -> None:
        """Slurm takes this of a pending job only, and leaves the batch step some seconds after requeueing.

        The first try is often killed: Slurm's SIGTERM is for all processes of the step.
        """
        problem, deadline = "", time.monotonic() + LEAVE_OUT_SECONDS
        while time.monotonic() < deadline:
            try:
                tell("scontrol", "update", f"jobid={self.job}", f"ExcNodeList={','.join(nodes)}")
                return
            except RunFailure as error:
                problem = str(error)
            time.sleep(POLL_SECONDS)
        print(f"{', '.join(nodes)} may be given to the job again: {problem}", flush=True)

    def _make_way(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True
