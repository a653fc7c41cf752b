"""What a preflight found, for people and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cluster.preflight.reports import Report
from cluster.preflight.verdict import VERSION, Verdict

MOST_OF_A_NODE = 3


def as_table(reports: Sequence[Report]) -> str:
    """A row a node, a column a check; versions that all nodes have stand below."""
    checks = [*dict.fromkeys(f.check for r in reports for f in r.findings if not f.check.startswith(VERSION))]
    rows = [["node", *checks]]
    for report in reports:
        found: dict[str, str] = {}
        for finding in report.findings:
            mark = "" if not finding.problem else " (!)"
            found[finding.check] = f"{finding.found}{mark}"
        rows.append([report.node, *(found.get(check, "-") for check in checks)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    of_versions = [f for report in reports for f in report.findings if f.check.startswith(VERSION)]
    versions = {f"{finding.check.removeprefix(VERSION)} {finding.found}" for finding in of_versions}
    return "\n".join([*lines, ", ".join(sorted(versions))])


def in_words(verdict: Verdict) -> list[str]:
    """A line for each thing that is wrong, and no more than a few of a node: others may all complain of it."""
    return [
        *(f"{node}: {words}" for node, all_words in verdict.nodes.items() for words in all_words[:MOST_OF_A_NODE]),
        *(f"every node: {words}" for words in verdict.everywhere),
        *(f"between nodes: {words}" for words in verdict.undecided),
        *(f"warning: {words}" for words in verdict.warnings),
    ]


def as_json(nodes: Sequence[Report], ranks: Sequence[Report], verdict: Verdict, seconds: float) -> dict[str, Any]:
    """All that was found."""
    return {
        "passed": verdict.passed,
        "seconds": round(seconds, 2),
        "problems": in_words(verdict),
        "nodes": [asdict(report) for report in nodes],
        "ranks": [asdict(report) for report in ranks],
    }
