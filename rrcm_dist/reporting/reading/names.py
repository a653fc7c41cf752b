"""What a log's path says about its run: the noise level and the family of runs that it belongs to."""

import re
from pathlib import Path

NUMBER = r"(?P<value>\d+(?:\.\d+)?)"
TEST_NOISE = re.compile(rf"(?:sigma|σ)[_=\-\s]?{NUMBER}", re.IGNORECASE)
TRAINING_NOISE = re.compile(rf"(?:noise_sd|noise)[_=\-\s]?{NUMBER}", re.IGNORECASE)
GENERIC = {"", "test", "val", "log", "logs", "certify", "certified", "certification", "certificates", "ledger", "runs"}
"""Words that do not tell one family from another."""
LOG_SUFFIXES = {".tsv", ".txt", ".log", ".csv", ".sqlite", ".sqlite3", ".db", ".ledger"}
FOLDERS_LOOKED_AT = 4
"""Published logs lie at model/noise_0.25/test/sigma_0.25: names are sought in so many folders above a file."""


def sigma_in_path(path: Path) -> float | None:
    """The noise level that a path states, or None.

    The file name is looked at before its folders, and `sigma_…` (noise of the test) before `noise_…` (noise of the
    training), as in the logs published with Cohen et al. 2019.
    """
    for part in _parts(path):
        for pattern in (TEST_NOISE, TRAINING_NOISE):
            found = pattern.search(part)
            if found:
                return float(found["value"])
    return None


def family_in_path(path: Path, sigma: float) -> str:
    """The name of the family of runs that differ in σ only: the file's name without the noise level.

    Noise levels other than `sigma` (a classifier trained at another level than it is tested at) stay in the name.
    Where nothing telling is left of the file's name, the folders above it are added, nearest last.
    """
    pieces: list[str] = []
    for part in _parts(path):
        piece = _without_noise(part, sigma)
        if piece.lower() in GENERIC:
            continue
        pieces.insert(0, piece)
        if not TRAINING_NOISE.fullmatch(piece):
            break
    return " ".join(pieces) or path.name


def _parts(path: Path) -> list[str]:
    """The file's name without its suffix, then the folders above it, nearest first."""
    stem = path.stem if path.suffix.lower() in LOG_SUFFIXES else path.name
    return [stem, *(folder.name for folder in list(path.absolute().parents)[:FOLDERS_LOOKED_AT])]


def _without_noise(text: str, sigma: float) -> str:
    def strip(found: re.Match[str]) -> str:
        return "" if float(found["value"]) == sigma else found[0]

    text = TRAINING_NOISE.sub(strip, TEST_NOISE.sub(strip, text))
    text = re.sub(r"[-_.\s]{2,}", lambda run: run[0][0], text).strip("-_. ")
    while (words := re.split(r"[-_.\s]", text)) and len(words) > 1 and words[-1].lower() in GENERIC:
        text = text[: -len(words[-1]) - 1]
    return text
