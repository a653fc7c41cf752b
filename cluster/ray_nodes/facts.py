"""What the nodes of a submission must know of its head: one file in the submission's folder, written whole."""

import json
import os
import secrets
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from rrcm_dist.files import write_json

FACTS, TOKEN = "ray.json", "ray-token"


class HeadState(StrEnum):
    """Where a head is."""

    RUNNING = "running"
    AWAY = "away"
    """It is to come back, with another address."""
    ENDED = "ended"
    """Nothing is left to do, or nothing can be done."""


@dataclass(frozen=True)
class HeadFacts:
    """A head, in one of its lives."""

    state: HeadState
    life: int
    address: str
    """HOST:PORT; empty before it is up."""
    dashboard: str
    """URL; it asks for the token."""
    token_file: str
    versions: dict[str, str]
    """Of Ray and Python: nodes must run the same."""

    def write(self, folder: Path) -> None:
        """Tell the nodes of the submission in `folder`."""
        write_json(folder / FACTS, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "HeadFacts | None":
        """None where no head has been up yet, or a network file system does not show it for a moment."""
        with suppress(OSError):
            values = json.loads((folder / FACTS).read_text())
            return cls(**{**values, "state": HeadState(values["state"])})
        return None


def versions_here() -> dict[str, str]:
    """Of Ray and Python, patch release included, as Ray compares them."""
    return {"Ray": version("ray"), "Python": ".".join(map(str, sys.version_info[:3]))}


def write_token(folder: Path) -> Path:
    """The file with the token of the submission in `folder`, made where there is none; of this user alone."""
    file = folder / TOKEN
    if not file.exists():
        aside = folder / f".{TOKEN}.{secrets.token_hex(4)}"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(secrets.token_hex(32))
        aside.replace(file)
    return file
