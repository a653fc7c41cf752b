"""`rrcm radius`: one certificate by hand."""

import json as json_format
from typing import Annotated

import typer


def command(
    successes: Annotated[int, typer.Option(help="Draws that were given the chosen class.", show_default=False)],
    trials: Annotated[int, typer.Option(help="Draws in all; none that chose the class.", show_default=False)],
    sigma: Annotated[float, typer.Option(help="Noise level on [0, 1] pixels.", show_default=False)],
    alpha: Annotated[float, typer.Option(help="Chance that the certificate is wrong.")] = 0.001,
    json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """The certified radius that so many agreeing draws prove (Cohen et al. 2019): Clopper–Pearson, then R = σ Φ⁻¹(p).

    No number is rounded up.

    rrcm radius --successes 990 --trials 1000 --alpha 0.001 --sigma 0.5
    """
    from rrcm_dist.certification.statistics.bounds import (
        certified_radius,
        clopper_pearson_lower,
        full_precision,
        round_down,
    )

    p_lower = float(clopper_pearson_lower(successes, trials, alpha))
    radius = float(certified_radius(p_lower, sigma))
    certified = p_lower >= 0.5
    if json:
        values = {"successes": successes, "trials": trials, "alpha": alpha, "sigma": sigma, "p_lower": p_lower,
                  "certified": certified, "radius": radius}  # fmt: skip
        typer.echo(json_format.dumps(values))
        return
    typer.echo(f"p_lower  {round_down(p_lower, 6)}  ({full_precision(p_lower)}), with confidence {1 - alpha:g}")
    if certified:
        typer.echo(f"radius   {round_down(radius, 6)}  ({full_precision(radius)}), l2 norm on [0, 1] pixels")
    else:
        typer.echo("radius   none: the lower bound is below 0.5, so the smoothed classifier abstains")
