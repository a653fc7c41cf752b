"""Reader of certification logs as the field publishes them: tab-separated `idx label predict radius correct time`.

They come with or without a header, with further columns (in any order where a header names them), and with `time` in
any form that Python prints a duration in. Anything that does not add up is an error that names the file and the line.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from rrcm_dist.certification.statistics.bounds import largest_radius
from rrcm_dist.errors import InvalidInput
from rrcm_dist.reporting.certificates import ABSTAIN, Certificates, Provenance
from rrcm_dist.reporting.reading.names import family_in_path, sigma_in_path

COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")
REQUIRED = COLUMNS[:5]
SIGMA_COLUMNS = ("sigma", "noise_sd")
SETTING_COLUMNS = ("n0", "n", "alpha", "seed")
"""Further columns that say how a certificate was made; shown where they are the same for the whole run."""
DURATION = re.compile(r"(?:(?P<days>\d+) days?, )?(?P<hours>\d+):(?P<minutes>\d{1,2}):(?P<seconds>\d{1,2}(?:\.\d+)?)")
UNKNOWN_TIME = {"", "-", "nan", "none"}
TRUTHS = {"1": True, "0": False, "true": True, "false": False, "1.0": True, "0.0": False}


@dataclass(frozen=True)
class _Row:
    line: int
    image: int
    label: int
    predict: int
    radius: float
    seconds: float
    sigma: float | None
    settings: Mapping[str, str]
    rounded: bool
    p_lower: float | None
    successes: int | None
    n: int | None
    n0: int | None


def read_log(
    path: Path, name: str | None = None, sigma: float | None = None, alpha: float | None = None
) -> list[Certificates]:
    """Read a log: one `Certificates` per noise level in it (more than one only where a column says σ).

    Args:
        path: The log.
        name: Name of the run; None takes it from the path.
        sigma: Noise level if neither a column nor the path states one.
        alpha: Chance that a certificate is wrong, if no column states it.

    Raises:
        InvalidInput: The file is no such log, a line is damaged, an image occurs twice, or no σ is known.
    """
    rows_by_sigma: dict[float, list[_Row]] = {}
    sigma_of_path = sigma_in_path(path)
    for row in _rows(path):
        level = next((value for value in (row.sigma, sigma_of_path, sigma) if value is not None), None)
        if level is None:
            raise InvalidInput(
                f"{path} does not state its noise level: give --sigma, or put it into the file name (sigma_0.25)"
            )
        rows_by_sigma.setdefault(level, []).append(row)
    if not rows_by_sigma:
        raise InvalidInput(f"{path} holds no certificates: it is empty, or has a header only")
    return [_certificates(path, name, level, alpha, rows) for level, rows in sorted(rows_by_sigma.items())]


def looks_like_a_log(path: Path) -> bool:
    """True where the first line that is not blank is the header of a log, or a row of one."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip() and not line.startswith("#")), "")
    except (UnicodeDecodeError, OSError):
        return False
    cells = [cell.strip().lower() for cell in first.split("\t")]
    if set(REQUIRED) <= set(cells):
        return True
    return len(cells) >= len(REQUIRED) and all(_is_number(cell) for cell in cells[:4])


def parse_seconds(text: str) -> float:
    """Seconds of a duration: '15.4', '0:00:13.736080', '1 day, 2:03:04'; NaN for '', '-', 'nan'; else `ValueError`."""
    text = text.strip()
    if text.lower() in UNKNOWN_TIME:
        return math.nan
    found = DURATION.fullmatch(text)
    if found is None:
        return float(text)
    days = int(found["days"] or 0)
    return days * 86400 + int(found["hours"]) * 3600 + int(found["minutes"]) * 60 + float(found["seconds"])


def _rows(path: Path) -> Iterator[_Row]:
    header: list[str] | None = None
    started = False
    for number, line in _lines(path):
        cells = [cell.strip() for cell in line.split("\t")]
        if not started:
            started = True
            if not _is_number(cells[0]):
                header = _header(path, number, cells)
                continue
        if header is not None and [cell.lower() for cell in cells] == header:
            continue  # a resumed run wrote its header again
        try:
            yield _row(number, _by_column(cells, header))
        except ValueError as error:
            raise InvalidInput(
                f"{path}, line {number}: {error}; mend the line, or remove it if the run was cut off there"
            ) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and not line.startswith("#"):
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path} is not a certification log: it is not text; a log has the columns {' '.join(COLUMNS)}"
        ) from error


def _header(path: Path, number: int, cells: list[str]) -> list[str]:
    names = [cell.lower() for cell in cells]
    missing = [column for column in REQUIRED if column not in names]
    if missing:
        raise InvalidInput(
            f"{path}, line {number} is not a certification log's header: it lacks {', '.join(missing)}; "
            f"a log is tab-separated with the columns {' '.join(COLUMNS)}"
        )
    return names


def _by_column(cells: list[str], header: list[str] | None) -> dict[str, str]:
    """Cells by column name; a missing `time` at the end is allowed, nothing else is."""
    names = header if header is not None else list(COLUMNS)
    if len(cells) < len(names) and names[len(cells) :] != ["time"]:
        raise ValueError(f"{len(cells)} columns where {len(names)} are expected")
    if header is not None and len(cells) > len(names):
        raise ValueError(f"{len(cells)} columns where the header names {len(names)}")
    return dict(zip(names, cells, strict=False))


def _row(line: int, cells: dict[str, str]) -> _Row:
    label, predict = _whole_number(cells, "label"), _whole_number(cells, "predict")
    radius = _number(cells, "radius")
    if radius < 0:
        raise ValueError(f"radius {cells['radius']} is negative")
    _check_correct(cells, label, predict)
    return _Row(
        line=line,
        image=_whole_number(cells, "idx"),
        label=label,
        predict=predict,
        radius=radius,
        seconds=_seconds(cells),
        sigma=next((_number(cells, column) for column in SIGMA_COLUMNS if column in cells), None),
        settings={column: cells[column] for column in SETTING_COLUMNS if column in cells},
        rounded=len(re.sub(r"e.*$|[^0-9]", "", cells["radius"].lower()).strip("0")) <= 3,
        p_lower=_optional_probability(cells, "p_lower"),
        successes=_optional_count(cells, "successes"),
        n=_optional_count(cells, "n"),
        n0=_optional_count(cells, "n0"),
    )


def _check_correct(cells: dict[str, str], label: int, predict: int) -> None:
    correct = TRUTHS.get(cells["correct"].lower())
    if correct is None:
        raise ValueError(f"correct is {cells['correct']!r}, expected 0 or 1")
    if correct != (predict == label and predict != ABSTAIN):
        raise ValueError(f"correct is {cells['correct']} but label is {label} and predict is {predict}")


def _seconds(cells: dict[str, str]) -> float:
    try:
        return parse_seconds(cells.get("time", ""))
    except ValueError as error:
        raise ValueError(f"time is {cells['time']!r}, expected seconds or h:mm:ss") from error


def _whole_number(cells: dict[str, str], column: str) -> int:
    value = _number(cells, column)
    if value != int(value):
        raise ValueError(f"{column} is {cells[column]!r}, expected a whole number")
    return int(value)


def _optional_count(cells: dict[str, str], column: str) -> int | None:
    """The cell where it is a count; a further column of that name may mean anything."""
    text = cells.get(column, "")
    return int(text) if text.isdecimal() else None


def _optional_probability(cells: dict[str, str], column: str) -> float | None:
    text = cells.get(column, "")
    return float(text) if _is_number(text) and 0 <= float(text) <= 1 else None


def _number(cells: dict[str, str], column: str) -> float:
    if not _is_number(cells[column]):
        raise ValueError(f"{column} is {cells[column]!r}, expected a number")
    return float(cells[column])


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _certificates(path: Path, name: str | None, sigma: float, alpha: float | None, rows: list[_Row]) -> Certificates:
    if sigma <= 0:
        raise InvalidInput(f"{path}: σ = {sigma:g} cannot be, it must be above 0")
    _check_each_image_once(path, sigma, rows)
    rows = sorted(rows, key=lambda row: row.image)
    counted = [row for row in rows if row.n != 0]  # a log of ours has images that were given up, with no draw
    agreement = np.full(len(rows), math.nan)
    agreement[[row.n != 0 for row in rows]], known_as = _agreement(counted, sigma)
    return Certificates(
        name=name or family_in_path(path, sigma),
        sigma=sigma,
        image=np.array([row.image for row in rows], dtype=np.int64),
        label=np.array([row.label for row in rows], dtype=np.int64),
        predict=np.array([row.predict for row in rows], dtype=np.int64),
        radius=np.array([row.radius for row in rows], dtype=np.float64),
        seconds=np.array([row.seconds for row in rows], dtype=np.float64),
        agreement=agreement,
        draws=np.array([row.n + (row.n0 or 0) if row.n else math.nan for row in rows], dtype=np.float64),
        provenance=replace(_provenance(path, counted or rows, sigma, alpha), agreement=known_as),
        failures={row.image: "no draw of it is in the log" for row in rows if row.n == 0},
    )


def _provenance(path: Path, rows: list[_Row], sigma: float, alpha: float | None) -> Provenance:
    settings = _common_settings(rows)
    if alpha is not None:
        settings.setdefault("alpha", f"{alpha:g}")
    stated = settings.get("alpha")
    known = float(stated) if stated is not None and _is_number(stated) and 0 < float(stated) < 1 else None
    drawn = {(row.n, row.n0) for row in rows}
    n, n0 = drawn.pop() if len(drawn) == 1 else (None, None)
    return replace(
        file_provenance(path, "log"),
        settings=settings,
        rounded=all(row.rounded for row in rows),
        alpha=known,
        n=n,
        reach=_reach(rows, n, known, sigma),
        fixed_draws=None if n is None else n + (n0 or 0),
    )


def _reach(rows: list[_Row], n: int | None, alpha: float | None, sigma: float) -> float:
    """The largest radius that n draws certify, or that the log certifies by a bound of its own; inf if n is unknown."""
    return max(largest_radius(n, alpha, sigma), *(row.radius for row in rows)) if n and alpha else math.inf


def _agreement(rows: list[_Row], sigma: float) -> tuple[np.ndarray, str]:
    """float64 (N,): p_A from the counts where they stand there, else its lower bound, from its column or Φ(R/σ)."""
    counted = [row.successes / row.n for row in rows if row.successes is not None and row.n]
    if len(counted) == len(rows) and max(counted, default=0) <= 1:
        return np.array(counted), "estimate"
    radii = np.array([row.radius if row.predict != ABSTAIN else math.nan for row in rows])
    stated = np.array([math.nan if row.p_lower is None else row.p_lower for row in rows])
    return np.where(np.isnan(stated), ndtr(radii / sigma), stated), "bound"


def _check_each_image_once(path: Path, sigma: float, rows: list[_Row]) -> None:
    line_of_image: dict[int, int] = {}
    for row in rows:
        first = line_of_image.setdefault(row.image, row.line)
        if first != row.line:
            raise InvalidInput(
                f"{path}, lines {first} and {row.line}: image {row.image} stands twice at σ = {sigma:g} "
                "(two runs appended to one file, or a padded sampler?); keep one line per image"
            )


def _common_settings(rows: list[_Row]) -> dict[str, str]:
    first = rows[0].settings
    return {key: value for key, value in first.items() if all(row.settings.get(key) == value for row in rows)}


def file_provenance(path: Path, kind: str) -> Provenance:
    """Path, kind and day of last change of a file."""
    day = datetime.fromtimestamp(path.stat().st_mtime, tz=UTC).date().isoformat()
    return Provenance(path=path, kind=kind, date=day)
