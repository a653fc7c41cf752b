"""`rrcm demo`."""

import time
from typing import Annotated

import typer

from rrcm_dist.cli.options import DeviceOption, DryRunOption, OverridesArgument
from rrcm_dist.config.schema import DemoConfig


def command(
    overrides: OverridesArgument = None,
    recipe: Annotated[str, typer.Option("--recipe", help="A demo recipe: a YAML file or a name.")] = "demo",
    dry_run: DryRunOption = False,
    device: DeviceOption = "cpu",
) -> None:
    """The whole pipeline on real handwritten digits, in minutes on two CPU cores.

    Builds shards, pre-trains an encoder, fine-tunes it and one from scratch at each σ, certifies held-out images, and
    writes a page that compares them. Run it again after an interruption: it goes on where it stopped.

    ```sh
    rrcm demo output=runs/demo seed=1
    ```
    """
    from rrcm_dist.config.load import load_recipe

    loaded = load_recipe(recipe, overrides or (), kind="demo")
    assert isinstance(loaded, DemoConfig)
    if dry_run:
        from rrcm_dist.config.describe import describe

        typer.echo(describe(loaded, gpus=1))
        return
    from rrcm_dist.demo import run_demo

    start = time.monotonic()
    result = run_demo(loaded, device, lambda line: typer.secho(line, bold=True, err=True))
    typer.echo(f"\nDone in {time.monotonic() - start:.0f} s. Numbers: {result.summary}\nOpen {result.page.resolve()}")
