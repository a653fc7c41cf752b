"""`rrcm radius`: one certificate by hand."""

import json as json_format
from decimal import Decimal
from typing import Annotated

import typer


def command(
    successes: Annotated[int, typer.Option(help="Draws that were given the chosen class.", show_default=False)],
    trials: Annotated[int, typer.Option(help="Draws in all; none that chose the class.", show_default=False)],
    sigma: Annotated[float, typer.Option(help="Noise level on [0, 1] pixels.", show_default=False)],
    alpha: Annotated[float, typer.Option(help="Chance that the certificate is wrong.")] = 0.001,
    runner_up: Annotated[
        int | None,
        typer.Option(
            help="Draws that were given the most frequent other class: bound it, too, with half of alpha for each.",
            show_default="the chosen class alone is bounded",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """The certified radius that so many agreeing draws prove (Cohen et al. 2019): Clopper–Pearson, then R = σ Φ⁻¹(p).

    With --runner-up, R = σ/2 (Φ⁻¹(p_lower) - Φ⁻¹(p_upper)). No radius is rounded up.

    ```sh
    rrcm radius --successes 990 --trials 1000 --alpha 0.001 --sigma 0.5
    rrcm radius --successes 990 --runner-up 2 --trials 1000 --alpha 0.001 --sigma 0.5
    ```
    """
    from rrcm_dist.certification.statistics.bounds import certified_radius, clopper_pearson_lower
    from rrcm_dist.certification.statistics.two_sided import simultaneous_bounds, two_sided_radius

    given = {"successes": successes, "trials": trials, "alpha": alpha, "sigma": sigma}
    if runner_up is None:
        p_lower, p_upper = float(clopper_pearson_lower(successes, trials, alpha)), None
        radius, certified = float(certified_radius(p_lower, sigma)), p_lower >= 0.5
        found = {"p_lower": p_lower}
    else:
        p_lower, p_upper = (float(bound) for bound in simultaneous_bounds(successes, runner_up, trials, alpha))
        radius, certified = float(two_sided_radius(p_lower, p_upper, sigma)), p_lower > p_upper
        found = {"runner_up": runner_up, "p_lower": p_lower, "p_upper": p_upper}
    if json:
        typer.echo(json_format.dumps({**given, **found, "certified": certified, "radius": radius}))
    else:
        _show(p_lower, p_upper, radius if certified else None, alpha)


def _show(p_lower: float, p_upper: float | None, radius: float | None, alpha: float) -> None:
    from rrcm_dist.certification.statistics.bounds import full_precision, round_down, round_up

    confidence = f"with confidence {1 - Decimal(full_precision(alpha))}"
    if p_upper is None:
        typer.echo(f"p_lower  {round_down(p_lower, 6)}  ({full_precision(p_lower)}), {confidence}")
    else:
        typer.echo(f"p_lower  {round_down(p_lower, 6)}  ({full_precision(p_lower)})")
        typer.echo(f"p_upper  {round_up(p_upper, 6)}  ({full_precision(p_upper)}), both {confidence}")
    if radius is not None:
        typer.echo(f"radius   {round_down(radius, 6)}  ({full_precision(radius)}), l2 norm on [0, 1] pixels")
    elif p_upper is None:
        typer.echo("radius   none: the lower bound is below 0.5, so the smoothed classifier abstains")
    else:
        typer.echo("radius   none: the bounds overlap, so the smoothed classifier abstains")
