"""What a Ray job executes to train: it places the ranks, watches them, and decides what comes after.

    python -m cluster.on_ray.drive RUN JOB SITE pretrain RECIPE …

It runs on the cluster's head node. When it dies, by whatever means, Ray ends its actors, and they their ranks.
"""

import logging
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from cluster.on_ray.ranks import Outcome, Ranks
from cluster.record.history import Cause, History, Life
from cluster.record.policy import goes_on
from cluster.record.progress import newest_checkpoint, newest_step
from cluster.site import RaySite, load_site
from rrcm_dist.cli.door import enter
from rrcm_dist.errors import INTERRUPTED, InvalidInput, RunFailure

ROOM_SECONDS = 1.0
SAY_SECONDS = 10
"""After so long without room, that is said."""


@dataclass
class Driver:
    """One job of a training run, in all its lives."""

    run: Path
    """The run folder."""
    job: str
    """Its submission id."""
    site: RaySite
    command: list[str]
    """What follows `python -m cluster.rank_door`."""
    asked: bool = False
    """To keep a checkpoint and end: by SIGTERM, as `ray job stop` sends it."""

    def __call__(self) -> None:
        """Live until the run is done or must not go on. Raises `RunFailure` where it ends for a failure."""
        import ray

        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        signal.signal(signal.SIGTERM, self._ask)  # after Ray, which sets its own
        history = History(self.run)
        while (group := self._place()) is not None:
            life = history.begin(self.job, newest_step(self.run))
            print(f"life {life.number} of {self.run}, from step {life.start_step}", flush=True)
            try:
                cause, detail = self._live(life, group)
            finally:
                ray.util.remove_placement_group(group)
            history.end(life, cause, newest_step(self.run), detail)
            print(f"life {life.number} ended: {cause}{f' ({detail})' if detail else ''}", flush=True)
            again, why_not = goes_on(history.lives(), self.site.crashes_allowed)
            if not again:
                self._end(cause, "; ".join(filter(None, [detail, why_not])))
                return
        sys.exit(INTERRUPTED)

    def _place(self) -> Any:
        """A placement group with room for every rank, once there is; None where the job is to end before."""
        from ray.util import placement_group, remove_placement_group

        share = {"CPU": float(self.site.cpus_per_rank), "GPU": float(self.site.gpus_per_rank)}
        group = placement_group([{k: v for k, v in share.items() if v}] * self.site.ranks, strategy="PACK")
        waited = 0
        while not group.wait(ROOM_SECONDS):
            waited += 1
            if waited == SAY_SECONDS:
                print(f"waiting for room for {self.site.ranks} ranks, each {share}", flush=True)
            if self.asked:
                remove_placement_group(group)
                return None
        return group

    def _live(self, life: Life, group: Any) -> tuple[Cause, str]:
        from ray.exceptions import RayActorError, RayTaskError

        logs = self.run / "logs" / f"life-{life.number}"
        logs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "cluster.rank_door", *self.command]
        ranks = Ranks(self.site, group)
        try:
            for rank, facts in enumerate(ranks.prepare([sys.executable, str(logs), str(Path.cwd())])):
                print(f"rank {rank} is on {facts.host} ({facts.address})", flush=True)
            outcome = ranks.run(command, self.site.environment, logs, lambda: self.asked)
            return self._cause(ranks, outcome)
        except RayActorError as error:
            # A node that lives would end the next actors as it did these: that counts as a crash.
            cause = Cause.NODE_LOST if ranks.lost_a_node() else Cause.CRASHED
            return cause, f"before the ranks had begun: {' '.join(str(error).split())[:200]}"
        except RayTaskError as error:
            return Cause.CRASHED, f"a rank could not be started: {str(error).strip().splitlines()[-1][:200]}"
        except RunFailure as error:
            return Cause.REFUSED, str(error)
        finally:
            with suppress(Exception):  # those of a dead node
                ranks.close()

    def _cause(self, ranks: Ranks, outcome: Outcome) -> tuple[Cause, str]:
        newest = newest_checkpoint(self.run)
        if newest and newest.finished and not outcome.failures and not outcome.lost:
            return Cause.DONE, ""
        if self.asked:
            return Cause.CANCELLED, ""
        if outcome.lost:
            if dead := ranks.dead_nodes(outcome.lost):
                return Cause.NODE_LOST, f"{', '.join(dead)} is gone"
            one = outcome.lost[0]
            # Its node lives: Ray ends an actor when memory runs out, which it would again.
            return Cause.CRASHED, f"Ray's actor of rank {one.rank} on {one.host.host} died: {one.reason}"
        if not outcome.failures:
            return Cause.REQUEUED, "somebody asked the ranks to end by a signal"
        first = outcome.first_failure
        log = first.log.relative_to(self.run)
        if first.code == InvalidInput.exit_code:
            return Cause.REFUSED, f"see {log}"
        return Cause.CRASHED, f"rank {first.rank} {first.how}; see {log}"

    def _end(self, cause: Cause, words: str) -> None:
        if cause in (Cause.CRASHED, Cause.REFUSED):
            raise RunFailure(f"{cause}: {words}")
        if cause is Cause.CANCELLED:
            sys.exit(INTERRUPTED)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def main() -> None:
    """Entry point of the job."""
    run, job, site, *command = sys.argv[1:]
    enter(lambda: Driver(Path(run), job, load_site(RaySite, site, {}), command)())


if __name__ == "__main__":
    main()
