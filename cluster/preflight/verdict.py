"""Who is to blame, from all that was said. Pure functions.

A node is to blame for what is wrong with it alone, or with a machine's own parts. What is wrong on every node, or with
what nodes share on the only one, is no node's fault: the run would end the same way anywhere.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.preflight.reports import STAGES, Finding, Report

CLOCK_SECONDS = 5.0
"""By so much clocks may disagree."""
VERSION = "version of "
CODE = VERSION + "code"


@dataclass
class Verdict:
    """Empty where all is well."""

    nodes: dict[str, list[str]] = field(default_factory=dict)
    """What is wrong, in words, by the node to blame."""
    everywhere: list[str] = field(default_factory=list)
    """What is wrong, and no node's fault."""
    undecided: list[str] = field(default_factory=list)
    """What went wrong between nodes, and not which of them is to blame."""
    warnings: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the run may begin."""
        return not (self.nodes or self.everywhere or self.undecided)

    def blame(self, node: str, words: str) -> None:
        """One more thing wrong with a node."""
        self.nodes.setdefault(node, []).append(words)


def judge_nodes(reports: Sequence[Report], seconds: float) -> Verdict:
    """What to make of the look at each node; reports by node, the first node's first."""
    verdict = Verdict()
    names = [report.node for report in reports]
    _judge_silent(verdict, reports, seconds)
    spoken = [report for report in reports if report.node not in verdict.nodes]
    _judge_own(verdict, spoken, len(names))
    _judge_between(verdict, spoken)
    _judge_clocks(verdict, spoken)
    _judge_versions(verdict, spoken)
    return verdict


def judge_ranks(reports: Sequence[Report], seconds: float, least_bandwidth: float | None) -> Verdict:
    """What to make of the ranks' all-reduce; reports by rank. `undecided` asks for a test of pairs of nodes."""
    verdict = Verdict()
    nodes = list(dict.fromkeys(report.node for report in reports))
    of_devices = [
        Report(report.node, report.place, report.doing, [f for f in report.findings if f.check == "device"])
        for report in reports
    ]
    _judge_own(verdict, of_devices, len(nodes))
    alone = STAGES.index("meeting")
    for report in reports if verdict.passed and not any(report.problems for report in reports) else ():
        if not report.done and STAGES.index(report.doing) < alone:
            verdict.blame(report.node, _silence(report, seconds, f"rank {report.place}"))
    if verdict.passed and (words := _communication(reports, seconds, least_bandwidth)):
        if len(nodes) == 1:
            verdict.blame(nodes[0], words)
        else:
            verdict.undecided.append(words)
    return verdict


def stragglers(reports: Sequence[Report]) -> set[str]:
    """Nodes with a rank behind the most advanced one; empty where that is all of them."""
    furthest = max(STAGES.index(report.doing) for report in reports)
    behind = {report.node for report in reports if STAGES.index(report.doing) < furthest}
    return behind if behind < {report.node for report in reports} else set()


def _communication(reports: Sequence[Report], seconds: float, least_bandwidth: float | None) -> str:
    """What is wrong with the all-reduce, in words; empty where nothing is."""
    for report in reports:
        for finding in report.problems:
            return f"rank {report.place} on {report.node}: {_words(finding)}"
    if waiting := [report for report in reports if not report.done]:
        ranks = ", ".join(f"{report.place} ({report.node})" for report in waiting[:8])
        return f"after {seconds:g} s of {waiting[0].doing} ranks still wait for each other: {ranks}"
    slowest = bandwidth(reports)
    if least_bandwidth is not None and slowest is not None and slowest < least_bandwidth:
        return f"the all-reduce's bus bandwidth is {slowest:.2f} GB/s; the site asks for {least_bandwidth:g}"
    return ""


def bandwidth(reports: Sequence[Report]) -> float | None:
    """Bus bandwidth in GB/s as the slowest rank measured it; None where none did."""
    values = [f.value for report in reports for f in report.findings if f.check == "communication"]
    return min((value for value in values if value is not None), default=None)


def _judge_silent(verdict: Verdict, reports: Sequence[Report], seconds: float) -> None:
    silent = [report for report in reports if not report.done and not report.problems]
    if len(silent) == len(reports) and (len(reports) > 1 or not silent[0].doing):
        verdict.undecided.append(f"no node came through: {_silence(silent[0], seconds, silent[0].node)}")
        return
    for report in silent:
        verdict.blame(report.node, _silence(report, seconds, "it"))


def _silence(report: Report, seconds: float, who: str) -> str:
    mend = "see the job's log; log in there and try the same, or restart the node"
    if not report.doing:
        return f"{who} said nothing: Python did not start there within {seconds:g} s: {mend}"
    return f"{who} came no further than `{report.doing}` within {seconds:g} s: {mend}"


def _judge_own(verdict: Verdict, reports: Sequence[Report], nodes: int) -> None:
    """What each node, or rank, found by itself."""
    by_check: dict[str, dict[str, Finding]] = defaultdict(dict)
    for report in reports:
        for finding in report.findings:
            if finding.warning:
                verdict.warnings.append(f"{report.node}: {_words(finding)}")
            elif finding.problem and not finding.other:
                by_check[finding.check].setdefault(report.node, finding)
    for found in by_check.values():
        finding = next(iter(found.values()))
        if len(found) == nodes and (nodes > 1 or finding.shared):
            verdict.everywhere.append(_words(finding))
            continue
        for node, finding in found.items():
            verdict.blame(node, _words(finding))


def _judge_between(verdict: Verdict, reports: Sequence[Report]) -> None:
    """Of what fails between two nodes, the one is to blame with which most fails; the first node only if it is more."""
    order = [report.node for report in reports]
    failing = [
        (report.node, finding)
        for report in reports
        for finding in report.findings
        if finding.problem and finding.other and finding.other in order
    ]
    while failing := [(node, f) for node, f in failing if not {node, f.other} & verdict.nodes.keys()]:
        # An order of blame: who cannot see (or reach) most, or is not seen; among equals the last, never the first.
        counts = Counter(name for node, finding in failing for name in (node, finding.other))
        guilty = max(counts, key=lambda name: (counts[name], order.index(name)))
        for node, finding in failing:
            if guilty == node:
                verdict.blame(guilty, _words(finding))
            elif guilty == finding.other:
                verdict.blame(guilty, f"seen from {node}: {_words(finding)}")


def _judge_clocks(verdict: Verdict, reports: Sequence[Report]) -> None:
    ahead = {r.node: f.value or 0.0 for r in reports for f in r.findings if f.check == "clock"}
    if not ahead:
        return
    right = statistics.median(ahead.values()) if len(ahead) > 2 else 0.0
    for node, seconds in ahead.items():
        if abs(seconds - right) > CLOCK_SECONDS:
            mend = "set it (`chronyc makestep`, or restart its time service)"
            verdict.blame(node, f"clock: {seconds - right:+.1f} s from the other nodes': {mend}")


def _judge_versions(verdict: Verdict, reports: Sequence[Report]) -> None:
    """The version that most nodes have is right; among equals the first node's."""
    checks = dict.fromkeys(f.check for r in reports for f in r.findings if f.check.startswith(VERSION))
    for check in checks:
        found = {r.node: f.found for r in reports for f in r.findings if f.check == check}
        right = Counter(found.values()).most_common(1)[0][0]
        for node, version in found.items():
            if version != right and check == CODE:  # perhaps somebody edits it at this moment
                verdict.warnings.append(f"{node}: its files of rrcm-dist differ from other nodes'")
            elif version != right:
                mend = "install the same there, or have all nodes use one shared environment"
                verdict.blame(node, f"{check.removeprefix(VERSION)} is {version} where others have {right}: {mend}")


def _words(finding: Finding) -> str:
    return ": ".join(filter(None, [finding.check, finding.problem, finding.mend]))
