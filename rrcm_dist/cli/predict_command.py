"""`rrcm predict`: what the smoothed classifier answers, from the counts of a ledger."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rrcm_dist.errors import InvalidInput

if TYPE_CHECKING:
    from rich.table import Table

    from rrcm_dist.certification.ledger.reader import LedgerReader
    from rrcm_dist.certification.statistics.prediction import Prediction

COLUMNS = ("idx", "label", "predict", "correct", "p_value", "top", "top_draws", "second", "second_draws", "n", "sigma",
           "alpha", "key")  # fmt: skip


def command(
    path: Annotated[Path, typer.Argument(metavar="LEDGER", help="A ledger, or the output folder of rrcm certify.")],
    alpha: Annotated[
        float | None, typer.Option(help="Chance that a prediction is wrong.", show_default="the ledger's")
    ] = None,
    sigma: Annotated[
        list[float] | None, typer.Option(help="Noise level; may be given repeatedly.", show_default="all of the ledger")
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(help="Predict from so many draws, the first ones.", show_default="all estimation draws"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE.tsv", help="Write one line an image and σ.", show_default="none is written"),
    ] = None,
) -> None:
    """What the smoothed classifier answers to each image, from the counts of a ledger: no draw is made.

    The most frequent class of the draws, or none (-1) where a two-sided binomial test of the two most frequent classes
    does not tell them apart at alpha (PREDICT of Cohen et al. 2019). With chance of at most alpha an image is given a
    class that is not the smoothed classifier's.

    ```sh
    rrcm predict runs/cifar10/certify-b --alpha 0.001 --n 1000 --output predictions.tsv
    ```
    """
    from rrcm_dist.certification.ledger.place import ledger_at
    from rrcm_dist.certification.ledger.reader import LedgerReader

    with LedgerReader(ledger_at(path)) as ledger:
        predictions = {level: _predict(ledger, level, alpha, n) for level in _sigmas(ledger, sigma)}
    if not any(predictions.values()):
        raise InvalidInput(f"{path} holds no finished image yet: let the certification go on, then predict")
    _print(_table(predictions))
    if output is not None:
        _write(output, predictions)
        typer.echo(f"predictions: {output}")


def _sigmas(ledger: "LedgerReader", asked: Sequence[float] | None) -> list[float]:
    held = [classifier.sigma for classifier in ledger.classifiers()]
    for sigma in asked or ():
        if sigma not in held:
            raise InvalidInput(f"{ledger.path} has no sigma {sigma:g}: it has {', '.join(f'{s:g}' for s in held)}")
    return sorted(set(asked)) if asked else held


def _predict(ledger: "LedgerReader", sigma: float, alpha: float | None, n: int | None) -> "list[Prediction]":
    from rrcm_dist.certification.statistics.prediction import predict_counts

    if ledger.mode == "adaptive":
        raise InvalidInput(
            f"{ledger.path} is of mode adaptive, where the counts decided when to stop: prediction needs a number of "
            "draws fixed beforehand, as in mode=fixed"
        )
    return predict_counts(list(ledger.counts(sigma, n)), ledger.identity.alpha if alpha is None else alpha)


def _table(predictions: "dict[float, list[Prediction]]") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("σ", "images", "correct %", "abstained %", "wrong %", "draws", "α"):
        table.add_column(column, justify="right", no_wrap=True)
    for sigma, level in predictions.items():
        if level:
            correct, abstained = sum(p.correct for p in level), sum(p.abstains for p in level)
            shares = (correct, abstained, len(level) - correct - abstained)
            percents = [f"{100 * share / len(level):.1f}" for share in shares]
            table.add_row(f"{sigma:g}", str(len(level)), *percents, str(level[0].n), f"{level[0].alpha:g}")
    return table


def _print(table: "Table") -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _write(path: Path, predictions: "dict[float, list[Prediction]]") -> None:
    from rrcm_dist.certification.statistics.bounds import full_precision
    from rrcm_dist.files import write_text

    lines = ["\t".join(COLUMNS)]
    for p in (prediction for level in predictions.values() for prediction in level):
        values = [p.image, p.label, p.prediction, int(p.correct), full_precision(p.p_value), p.top, p.top_draws,
                  p.second, p.second_draws, p.n, full_precision(p.sigma), full_precision(p.alpha), p.key]  # fmt: skip
        lines.append("\t".join(str(value) for value in values))
    write_text(path, "\n".join(lines) + "\n")
