"""Logs in the forms that they are published in, made here from certificates with known answers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")
CERTIFICATES = (
    # idx, label, predict, radius, correct
    (0, 3, 3, 0.5, 1),
    (20, 7, -1, 0.0, 0),
    (40, 4, 4, 0.25, 1),
    (60, 7, 1, 0.75, 0),
)
"""Certified accuracy 0.5 at r ≤ 0.25, 0.25 at 0.5, 0 beyond; ACR 0.75 / 4; one of four abstains."""


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[..., Path]:
    """Write a log of `certificates` with a time each; returns its path."""

    def write(
        name: str,
        certificates: Sequence[tuple] = CERTIFICATES,
        header: Sequence[str] | None = COLUMNS,
        times: Sequence[str] | None = None,
        newline: str = "\n",
    ) -> Path:
        lines = ["\t".join(header)] if header else []
        for position, certificate in enumerate(certificates):
            time = [times[position]] if times else ["15.4"]
            lines.append("\t".join(str(value) for value in (*certificate, *time)))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(newline.join([*lines, ""]), newline="")
        return path

    return write
