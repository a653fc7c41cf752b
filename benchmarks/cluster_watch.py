"""A run on the test cluster of tests/slurm, watched from outside: when it made which step, and what Slurm did to it."""

import re
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "slurm")]

from slurm_cluster import SlurmCluster  # noqa: E402
from slurm_daemons import why_no_slurm  # noqa: E402
from slurm_hosts import why_no_hosts  # noqa: E402
from tiny_runs import TinyRun  # noqa: E402

POLL_SECONDS, ASK_SECONDS = 0.05, 0.5
SAYS = re.compile(r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+(?: DUE TO ([A-Z ]+))? \*\*\*")


@contextmanager
def test_cluster() -> Iterator[SlurmCluster]:
    """The cluster of two nodes that the tests bring up; ends the process with the reason where it cannot be."""
    if reason := why_no_hosts() or why_no_slurm():
        sys.exit(f"error: {reason}")
    with SlurmCluster() as cluster:
        yield cluster


@dataclass(frozen=True)
class Loss:
    """What an event cost a run, in seconds. `until_life` + `start` + `replay` = `seconds` + a step's time."""

    seconds: float
    """The longest time after the event in which no step was made that had not been made before, less a step's time."""
    until_life: float
    """Of these, to the beginning of the next life: Slurm notices, ends the old one, starts the new one."""
    start: float
    """From there to the first step of the new life: processes, imports, set-up, the checkpoint."""
    replay: float
    """From there to the first step that is new."""
    replayed_steps: int


class Watch(threading.Thread):
    """Looks at a run until it is stopped."""

    def __init__(self, run: TinyRun) -> None:
        super().__init__(daemon=True)
        self._run, self._ended = run, threading.Event()
        self.steps: list[tuple[float, int]] = []
        """(seconds since 1970, last step told), at each change."""
        self.states: list[tuple[float, str]] = []
        """(seconds since 1970, state of the job), at each change."""

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Poll."""
        asked = 0.0
        while not self._ended.wait(POLL_SECONDS):
            now, step = time.time(), self._run.last_step()
            if step and (not self.steps or self.steps[-1][1] != step):
                self.steps.append((now, step))
            if self._run.job and now - asked > ASK_SECONDS:
                asked, state = now, self._state()
                if state and (not self.states or self.states[-1][1] != state):
                    self.states.append((now, state))

    def _state(self) -> str:
        answer = self._run.slurm.try_to_run("squeue", "-h", "--states=all", f"--jobs={self._run.job}", "--format=%T")
        return answer.stdout.strip()

    def step_seconds(self) -> float:
        """Median time of a step."""
        pairs = zip(self.steps, self.steps[1:], strict=False)
        return statistics.median((t - s) / (j - i) for (s, i), (t, j) in pairs if j > i)

    def loss(self) -> Loss:
        """What the run's event has cost it. To be asked when the run is done."""
        start, end, highest = self._longest_gap(self._run.happened)
        seconds = end - start - self.step_seconds()
        lives = [life for life in self._run.lives() if start < life.started.timestamp() < end]
        if not lives:
            return Loss(seconds, 0.0, 0.0, 0.0, 0)
        begun = lives[0].started.timestamp()
        first = next(moment for moment, _ in self.steps if moment > begun)
        return Loss(seconds, begun - start, first - begun, end - first, highest - lives[0].start_step)

    def _longest_gap(self, since: float) -> tuple[float, float, int]:
        """(start, end, highest step at its start) of the longest time after `since` without a new step."""
        gaps, (last, highest) = [], self.steps[0]
        for moment, step in self.steps[1:]:
            if step <= highest:
                continue
            if moment > since:
                gaps.append((max(last, since), moment, highest))
            last, highest = moment, step
        assert gaps, "the run was done before the event came"
        return max(gaps, key=lambda gap: gap[1] - gap[0])

    def slurm_words(self) -> str:
        """What Slurm wrote into the job's log, and how the job's state changed."""
        logs = sorted(self._run.output.glob("cluster/submission-*/*_log.out"))
        reasons = [found[1] or "no reason" for log in logs for found in SAYS.finditer(log.read_text())]
        said = ", ".join(dict.fromkeys(reason.strip().lower() for reason in reasons))
        states = " → ".join(state.lower() for _, state in self.states)
        return f"{states}; cancelled: {said}" if said else states
