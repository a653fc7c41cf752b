"""The preflight of one life, as steps of its job: it starts them by srun, listens to them, and judges."""

import os
import secrets
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cluster.preflight.pairs import Pair, find_bad
from cluster.preflight.reports import Report, Reports
from cluster.preflight.table import as_json, as_table, in_words
from cluster.preflight.task import NodeTask
from cluster.preflight.verdict import Verdict, bandwidth, judge_nodes, judge_ranks, stragglers
from cluster.site import SlurmSite
from cluster.slurm.batch_step import POLL_SECONDS, BatchStep
from rrcm_dist.files import write_json

ENDING_SECONDS = 10.0
"""For so long an srun that was told to end is waited for."""
GRACE_SECONDS = 5.0
"""After a rank's failure: so long the others may say what they see of it."""


@dataclass
class Preflight:
    """The look at the nodes of a life, and the ranks' first all-reduce."""

    run: Path
    kind: str
    recipe: str
    site: SlurmSite
    life: int
    addresses: Mapping[str, str]
    """Of the job's nodes, by name, in Slurm's order."""
    environment: Mapping[str, str]
    """Of the ranks."""
    step: BatchStep
    steps: int = 0
    """Of the job, that have been started: the next one has this number."""
    _reports: dict[str, list[Report]] = field(default_factory=lambda: {"nodes": [], "ranks": []})

    def __call__(self) -> Verdict:
        """Whether the nodes are fit; of no use where the job was asked to end meanwhile. Prints what was found."""
        start = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        verdict = self._look_at_nodes()
        if verdict.passed and not self._stopped and (self.site.ranks > 1 or self.site.device != "cpu"):
            warnings = verdict.warnings
            verdict = self._join_ranks()
            verdict.warnings = warnings
        seconds = time.monotonic() - start
        write_json(self.folder / "report.json", as_json(**self._reports, verdict=verdict, seconds=seconds))
        print("\n".join([as_table(self._reports["nodes"]), *in_words(verdict)]))
        outcome = "stopped" if self._stopped else "passed" if verdict.passed else "failed"
        print(f"preflight {outcome} in {seconds:.1f} s", flush=True)
        return verdict

    @property
    def folder(self) -> Path:
        """Where nodes show each other that they see the same, and what was found is kept."""
        return self.run / "cluster" / "preflight" / f"life-{self.life}"

    @property
    def _nodes(self) -> list[str]:
        return list(self.addresses)

    @property
    def _stopped(self) -> bool:
        return self.step.asked or self.step.terminated

    def _look_at_nodes(self) -> Verdict:
        site, token = self.site, secrets.token_hex()
        cores = site.ranks_per_node * site.cpus_per_rank
        task = NodeTask(
            self.kind, self.recipe, str(self.run), str(self.folder), token, dict(self.addresses),
            int(self.environment["MASTER_PORT"]), site.ranks_per_node, cores,
        )  # fmt: skip
        task.token_file.write_text(token)
        reports = Reports(self._nodes.__getitem__, site.nodes)
        shape = [f"--ntasks={site.nodes}", "--ntasks-per-node=1", f"--cpus-per-task={cores}"]
        self._run([_Step(self._srun(self._nodes, shape, "cluster.preflight.node", task.to_json()), reports, {}, False)])
        self._reports["nodes"] = reports.all
        return judge_nodes(reports.all, site.preflight_seconds)

    def _join_ranks(self) -> Verdict:
        reports = self._run([self._ranks(self._nodes)])[0].all
        self._reports["ranks"] = reports
        verdict = judge_ranks(reports, self.site.preflight_seconds, self.site.least_bandwidth)
        if (measured := bandwidth(reports)) is not None:
            words = next(f.found for report in reports for f in report.findings if f.value == measured)
            print(f"all-reduce over {self.site.ranks} ranks by {words}")
        if verdict.undecided and not self._stopped:
            self._find_guilty(verdict, reports)
        return verdict

    def _find_guilty(self, verdict: Verdict, reports: Sequence[Report]) -> None:
        """Of communication that fails between nodes: turn `undecided` into blame where that can be found out."""
        words = verdict.undecided[0]
        bad: set[str] | None = set()
        if len(self._nodes) > 2:
            print(f"{words}\npairs of nodes are tried", flush=True)
            bad = find_bad(self._nodes, self._fail_in_pairs)
        if bad is None:
            verdict.everywhere.append(f"no two nodes communicate well; of all, {words}")
        elif guilty := bad or stragglers(reports):
            for node in sorted(guilty):
                verdict.blame(node, f"communication fails with it: {words}")
        elif len(self._nodes) == 2:
            verdict.blame(self._nodes[1], f"of two nodes, one of which is at fault, the second: {words}")
        else:
            return  # any two communicate, and all together do not
        verdict.undecided.clear()

    def _fail_in_pairs(self, pairs: Sequence[Pair]) -> set[Pair]:
        ordered = [sorted(pair, key=self._nodes.index) for pair in pairs]  # Slurm's order: the first holds rank 0
        heard = self._run([self._ranks(pair) for pair in ordered])
        limits = self.site.preflight_seconds, self.site.least_bandwidth
        return {
            pair for pair, reports in zip(pairs, heard, strict=True) if not judge_ranks(reports.all, *limits).passed
        }

    def _ranks(self, nodes: Sequence[str]) -> "_Step":
        """All ranks of these nodes, which meet at the first of them."""
        site, count = self.site, len(nodes) * self.site.ranks_per_node
        reports = Reports(lambda place: nodes[place // site.ranks_per_node], count)
        shape = [
            f"--ntasks={count}",
            f"--ntasks-per-node={site.ranks_per_node}",
            f"--cpus-per-task={site.cpus_per_rank}",
        ]
        command = self._srun(nodes, shape, "cluster.preflight.rank", site.device, str(site.gpus_per_node))
        return _Step(command, reports, {"MASTER_ADDR": self.addresses[nodes[0]]}, True)

    def _srun(self, nodes: Sequence[str], shape: Sequence[str], module: str, *arguments: str) -> list[str]:
        where = [f"--nodes={len(nodes)}", f"--nodelist={','.join(nodes)}", "--overlap"]
        return ["srun", *where, *shape, "--kill-on-bad-exit=0", sys.executable, "-m", module, *arguments]

    def _run(self, steps: Sequence["_Step"]) -> list[Reports]:
        """Start these side by side; return when all have ended, or been ended, with what they have said."""
        for step in steps:
            step.start(self.environment)
            self.steps += 1
        deadline = time.monotonic() + self.site.preflight_seconds
        while any(step.goes_on for step in steps) and time.monotonic() < deadline and not self._stopped:
            time.sleep(POLL_SECONDS / 4)
        for step in steps:
            step.end()
        return [step.reports for step in steps]


@dataclass
class _Step:
    """An srun whose tasks report line by line."""

    command: list[str]
    reports: Reports
    environment: dict[str, str]
    ends_together: bool
    """Whether the others wait in vain for a task that failed."""

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it, and listen."""
        print(shlex.join(word if len(word) < 200 else "…" for word in self.command), flush=True)
        # In a session of its own: what is sent to the batch step's processes as a group is not for it.
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", env={**os.environ, **environment, **self.environment}, start_new_session=True,
        )  # fmt: skip
        self._failed_at = float("inf")
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def goes_on(self) -> bool:
        """Whether there is something to wait for."""
        return self._process.poll() is None and time.monotonic() < self._failed_at + GRACE_SECONDS

    def end(self) -> None:
        """Return when it has ended; srun, told to end, kills its tasks."""
        for end in (self._process.terminate, self._process.kill):
            if self._process.poll() is None:
                end()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(ENDING_SECONDS)
        self._listener.join(1.0)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not self.reports.hear(line):
                print(line, end="", flush=True)
            elif self.ends_together and any(report.problems for report in self.reports.all):
                self._failed_at = min(self._failed_at, time.monotonic())
