"""What the processes of a check say of themselves: a line when something begins, a line for all that is found.

Lines go through the standard output, not through files: a node that does not see the run's folder can be heard, too. A
process that hangs is known by what it began last.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

MARK = "preflight "
"""What a line of a report begins with; other lines are somebody else's."""
MOST_BYTES = 270
"""Of one text: a line of srun's output stays whole up to 1024 bytes."""
DONE = "done"
STAGES = ("", "importing torch", "device", "meeting", "all-reduce", DONE)
"""What a rank does, in order; one that is behind the others holds them up."""


@dataclass(frozen=True)
class Finding:
    """What one check found on one node."""

    check: str
    found: str = ""
    """In a few words, for the table."""
    problem: str = ""
    """What is wrong; empty where all is well."""
    mend: str = ""
    """What a person does about it."""
    warning: bool = False
    """The problem slows training down and does not stop it."""
    shared: bool = False
    """Of something that all nodes share, so that it is no fault of the only node of a run."""
    other: str = ""
    """The node that this is about, where it is between two."""
    value: float | None = None
    """To be compared with other nodes'."""


@dataclass
class Report:
    """All that one process has said."""

    node: str
    place: int
    """Of the process among those of its step."""
    doing: str = ""
    """What it began last; `DONE` once it came to its end."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether it came to its end."""
        return self.doing == DONE

    @property
    def problems(self) -> list[Finding]:
        """Findings that stop the run."""
        return [finding for finding in self.findings if finding.problem and not finding.warning]


@dataclass(frozen=True)
class Speaker:
    """The process's end: prints lines."""

    node: str
    place: int

    def begins(self, what: str) -> None:
        """Say what is done next."""
        self._say({"doing": what})

    def found(self, finding: Finding) -> None:
        """Say what a check found."""
        self._say({"finding": {name: _short(value) for name, value in asdict(finding).items() if value}})

    def _say(self, content: dict[str, Any]) -> None:
        line = json.dumps({"node": self.node, "place": self.place, **content}, ensure_ascii=False)
        print(f"{MARK}{line}", flush=True)


class Reports:
    """The listener's end: lines become reports, by place."""

    def __init__(self, expected: Callable[[int], str], places: int) -> None:
        """Expect `places` processes; `expected` tells on which node a place is, should it never say so."""
        self._reports = {place: Report(expected(place), place) for place in range(places)}

    def hear(self, line: str) -> bool:
        """Take in a line; False where it is no report's."""
        if not line.startswith(MARK):
            return False
        try:
            said = json.loads(line.removeprefix(MARK))
            report = self._reports[said["place"]]
            report.node = said["node"]
            report.doing = said.get("doing", report.doing)
            if "finding" in said:
                report.findings.append(Finding(**said["finding"]))
        except (ValueError, KeyError, TypeError):  # torn by the end of its writer
            return False
        return True

    @property
    def all(self) -> list[Report]:
        """In order of places."""
        return list(self._reports.values())


def _short(value: Any) -> Any:
    """One line, of at most `MOST_BYTES`."""
    if not isinstance(value, str):
        return value
    text = " ".join(value.split())
    if len(text.encode()) <= MOST_BYTES:
        return text
    return text.encode()[: MOST_BYTES - 3].decode(errors="ignore") + "…"
