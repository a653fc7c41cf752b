"""From paths to runs: what a folder holds, which log is a ledger's copy, which runs may not stand together."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from os.path import commonpath
from pathlib import Path

from rrcm_dist.certification.ledger.file import VERIFICATION_SCHEMA, schema_of
from rrcm_dist.errors import InvalidInput
from rrcm_dist.reporting.certificates import Certificates, Source
from rrcm_dist.reporting.reading.ledgers import is_ledger, read_ledger
from rrcm_dist.reporting.reading.logs import looks_like_a_log, read_log
from rrcm_dist.reporting.reading.names import LOG_SUFFIXES
from rrcm_dist.reporting.verification.reading import VerificationRun, runs_of


def read_sources(sources: Sequence[Source]) -> tuple[list[Certificates], list[VerificationRun]]:
    """Read every run of `sources`, in their order: certificates of ℓ2 radii, and ℓ∞ verifications apart from them.

    A log in the folder of a ledger that is read too is that ledger's copy and left out, so that nothing counts twice.

    Raises:
        InvalidInput: A path is missing, a folder holds neither ledger nor log, a file is neither, or two runs have the
            same name and σ, or name and ε.
    """
    if not sources:
        raise InvalidInput("nothing to report on: give at least one log, ledger or folder")
    found = {(source, path) for source in sources for path in _files(source.path)}
    ledgers = {path for _, path in found if is_ledger(path)}
    beside_ledgers = {ledger.parent for ledger in ledgers}
    runs: list[Certificates] = []
    unnamed: list[Certificates] = []
    verified: list[VerificationRun] = []
    read: set[tuple[str | None, Path]] = set()
    for source in sources:
        for path in _files(source.path):
            if (source.name, path) in read or (path not in ledgers and path.parent in beside_ledgers):
                continue
            read.add((source.name, path))
            if path in ledgers and schema_of(path) == VERIFICATION_SCHEMA:
                verified += runs_of(path, source.name)
                continue
            if path in ledgers:
                here = read_ledger(path, source.name, source.alpha)
            else:
                here = read_log(path, source.name, source.sigma, source.alpha)
            runs += here
            unnamed += here if source.name is None else []
    _check_sigma_used(sources, runs)
    _check_alpha_used(sources, runs)
    runs = _named_by_folder(runs, unnamed)
    _check_runs_differ(runs)
    _check_verifications_differ(verified)
    return runs, verified


def _named_by_folder(runs: Sequence[Certificates], unnamed: Sequence[Certificates]) -> list[Certificates]:
    """`runs`, those of `unnamed` that share name and σ with another called by their folders, if that helps."""
    times = Counter((run.name, run.sigma) for run in runs)
    clashing = [run for run in unnamed if any(times[name, sigma] > 1 for name, sigma in times if name == run.name)]
    folders: dict[str, set[Path]] = {}
    for run in clashing:
        folders.setdefault(run.name, set()).add(run.provenance.path.parent)
    taken = {run.name for run in runs}
    called = {}
    for run in clashing:
        folder = run.provenance.path.parent.relative_to(commonpath(folders[run.name])).as_posix()
        called[id(run)] = run.name if folder == "." or folder in taken else folder
    return [replace(run, name=called.get(id(run), run.name)) for run in runs]


def _files(path: Path) -> list[Path]:
    """The ledgers and logs at `path`, resolved: itself, or what its tree holds, in order of name."""
    if not path.exists():
        raise InvalidInput(f"there is nothing at {path}: give a certification log, a ledger, or a folder with some")
    if not path.is_dir():
        return [path.resolve()]
    files = [file.resolve() for file in _candidates(path) if is_ledger(file) or looks_like_a_log(file)]
    if not files:
        raise InvalidInput(
            f"{path} holds neither a ledger nor a certification log "
            "(tab-separated: idx label predict radius correct time)"
        )
    return files


def _candidates(folder: Path) -> Iterator[Path]:
    """Files that may be ledgers or logs by their names; published logs often have no suffix but the σ in the name."""
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        suffix = file.suffix.lower()
        likely = not suffix or suffix in LOG_SUFFIXES or suffix[1:].isdigit()
        if file.is_file() and likely and not hidden:
            yield file


def _check_sigma_used(sources: Sequence[Source], runs: Sequence[Certificates]) -> None:
    given = {source.sigma for source in sources if source.sigma is not None}
    unused = given - {run.sigma for run in runs}
    if unused:
        stated = ", ".join(f"{sigma:g}" for sigma in sorted({run.sigma for run in runs})) or "none: no noise is in them"
        raise InvalidInput(
            f"sigma {min(unused):g} was given, but every file states its own ({stated}): leave the option out, "
            "or rename a log whose name states a wrong one"
        )


def _check_alpha_used(sources: Sequence[Source], runs: Sequence[Certificates]) -> None:
    given = {source.alpha for source in sources if source.alpha is not None}
    unused = given - {run.provenance.alpha for run in runs}
    if unused:
        raise InvalidInput(f"alpha {min(unused):g} was given, but every log states its own: leave the option out")


def _check_runs_differ(runs: Sequence[Certificates]) -> None:
    first: dict[tuple[str, float], Certificates] = {}
    for run in runs:
        other = first.setdefault((run.name, run.sigma), run)
        if other is not run:
            raise InvalidInput(
                f"two runs are called {run.name!r} at σ = {run.sigma:g}: {other.provenance.path} and "
                f"{run.provenance.path}; tell them apart with --name LABEL=PATH, or name one file only"
            )


def _check_verifications_differ(runs: Sequence[VerificationRun]) -> None:
    first: dict[tuple[str, float], VerificationRun] = {}
    for run in runs:
        other = first.setdefault((run.name, run.epsilon), run)
        if other is not run:
            raise InvalidInput(
                f"two verifications are called {run.name!r} at ε = {run.epsilon:.6g}: {other.provenance.path} and "
                f"{run.provenance.path}; tell them apart with --name LABEL=PATH, or name one file only"
            )
