"""The ranks of one life, each on an actor of its own: started together, watched, stopped together."""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.on_ray.rank_host import HostFacts, RankHost, versions_here
from cluster.rank_processes import SETTLE_SECONDS, RankFailure
from cluster.site import RaySite
from rrcm_dist.errors import RunFailure

LOOK_SECONDS = 0.2
SILENCE_SECONDS = 90.0
"""So long after the ranks were stopped, one that Ray still says nothing of is lost; Ray takes up to a minute by default
to tell that a node is dead."""
NODE_DEATH_SECONDS = 5.0
"""After an actor's death; where its node caused it, Ray says so a little later."""


@dataclass(frozen=True)
class LostRank:
    """A rank whose actor is gone."""

    rank: int
    host: HostFacts
    reason: str
    """Ray's, in a line."""


@dataclass
class Outcome:
    """How the ranks of a life ended."""

    failures: list[RankFailure] = field(default_factory=list)
    """Those that ended badly before they were asked to."""
    lost: list[LostRank] = field(default_factory=list)

    @property
    def first_failure(self) -> RankFailure:
        """One that was killed, if there is any: the others then suffer from it."""
        return min(self.failures, key=lambda failure: failure.code >= 0)


class Ranks:
    """Actors in the bundles of a placement group, one a rank."""

    def __init__(self, site: RaySite, group: Any) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self._ray, self._site = ray, site
        self._alive_before = self._alive()
        self._hosts: list[Any] = [
            ray.remote(RankHost)
            .options(
                num_cpus=site.cpus_per_rank, num_gpus=site.gpus_per_rank, max_concurrency=3, max_restarts=0,
                max_task_retries=0, scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
            )
            .remote()
            for rank in range(site.ranks)
        ]  # fmt: skip
        self._facts: list[HostFacts] = []
        self._running: dict[Any, int] = {}

    def prepare(self, needed: Sequence[str]) -> list[HostFacts]:
        """Ask every host for its facts; `needed` are paths that must be there.

        Raises `RunFailure` for a host that cannot run a rank, and Ray's `RayActorError` where one is gone already.
        """
        errors = self._ray.exceptions
        try:
            self._facts = self._ray.get([host.facts.remote(needed) for host in self._hosts])
        except errors.RayActorError as error:
            if not error.actor_init_failed:
                raise
            raise RunFailure(f"a node of the cluster has not this environment: {_last_line(error)}") from None
        except errors.RayTaskError as error:
            raise RunFailure(f"a node of the cluster has not this environment: {_last_line(error)}") from None
        for facts in self._facts:
            _check(facts)
        return self._facts

    def run(
        self, command: Sequence[str], environment: Mapping[str, str], logs: Path, asked: Callable[[], bool]
    ) -> Outcome:
        """Run the ranks to the end of the last one; `asked` tells whether they are to keep a checkpoint and end.

        Raises Ray's `RayTaskError` where a rank could not be started, as on a full disk.
        """
        self._start(command, environment, logs)
        outcome, bad_since, stopped, seconds = Outcome(), None, None, 0.0
        while self._running:
            self._collect(outcome, stopped is None)
            now = time.monotonic()
            if bad_since is None and (outcome.failures or outcome.lost):
                bad_since = now
            if stopped is None and (asked() or (bad_since is not None and now - bad_since > SETTLE_SECONDS)):
                stopped, seconds = now, self._site.cancel_seconds if asked() else self._site.stop_seconds
                for rank in self._running.values():
                    self._hosts[rank].end.remote(seconds)
            if stopped is not None and now - stopped > seconds + SILENCE_SECONDS:
                outcome.lost += [LostRank(rank, self._facts[rank], "silent") for rank in self._running.values()]
                self._running.clear()
        return outcome

    def close(self) -> None:
        """End every actor, and its rank, at once."""
        for host in self._hosts:
            self._ray.kill(host)

    def dead_nodes(self, lost: Sequence[LostRank]) -> list[str]:
        """Hosts of lost ranks that Ray takes for dead; waits a little for it to notice."""
        hosts = {one.host.node: one.host.host for one in lost}
        return sorted({hosts[node] for node in self._dead(hosts.keys())})

    def lost_a_node(self) -> bool:
        """Whether a node of the cluster has died since these actors were asked for; waits as `dead_nodes` does."""
        return bool(self._dead(self._alive_before))

    def _dead(self, nodes: Set[str]) -> Set[str]:
        deadline = time.monotonic() + NODE_DEATH_SECONDS
        while not (dead := nodes - self._alive()) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return dead

    def _alive(self) -> set[str]:
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def _start(self, command: Sequence[str], environment: Mapping[str, str], logs: Path) -> None:
        first = self._facts[0]
        shared = {
            "WORLD_SIZE": str(len(self._hosts)),
            "LOCAL_RANK": "0",  # of the GPUs that Ray shows an actor: its own alone
            "MASTER_ADDR": first.address,
            "MASTER_PORT": str(first.free_port),
            "OMP_NUM_THREADS": str(self._site.cpus_per_rank),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        for rank, host in enumerate(self._hosts):
            additions = {**shared, "RANK": str(rank)}
            reference = host.run.remote(rank, command, additions, str(Path.cwd()), str(logs / f"rank-{rank}.log"))
            self._running[reference] = rank

    def _collect(self, outcome: Outcome, by_themselves: bool) -> None:
        for reference in self._ray.wait(list(self._running), timeout=LOOK_SECONDS)[0]:
            rank = self._running.pop(reference)
            try:
                failure = self._ray.get(reference)
            except self._ray.exceptions.RayActorError as error:
                outcome.lost.append(LostRank(rank, self._facts[rank], _last_line(error)))
                continue
            if failure is not None and by_themselves:
                outcome.failures.append(failure)


def _check(facts: HostFacts) -> None:
    if facts.missing:
        raise RunFailure(
            f"node {facts.host} does not see {', '.join(facts.missing)}: the cluster's nodes need the file system of "
            "the machine that submits, by the same paths"
        )
    here = versions_here()
    other = [
        f"{name} {facts.versions[name]} instead of {here[name]}" for name in here if facts.versions[name] != here[name]
    ]
    if other:
        raise RunFailure(
            f"node {facts.host} runs {', '.join(other)}, unlike the head node: start Ray on all from one environment"
        )


def _last_line(error: BaseException) -> str:
    """Of Ray's page; the cause stands there."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
