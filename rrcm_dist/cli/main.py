"""`rrcm`: pre-train, fine-tune, certify, report."""

import importlib
import os
import sys
import warnings

import typer

from rrcm_dist import __version__
from rrcm_dist.cli.door import enter

COMMANDS = (
    "demo",
    "pretrain",
    "finetune",
    "train-ibp",
    "evaluate",
    "embed",
    "certify",
    "verify",
    "predict",
    "merge",
    "report",
    "radius",
    "import",
    "export",
    "doctor",
)
"""In the order of `rrcm --help`; each is `command` in the module `<name>_command` beside this file, `-` as `_`."""


def build_app() -> typer.Typer:
    """The typer application with every command."""
    app = typer.Typer(
        name="rrcm",
        help="Train and certify rRCM (Robust Representation Consistency Model, ICLR 2025).",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in COMMANDS:
        module = importlib.import_module(f"rrcm_dist.cli.{name.replace('-', '_')}_command")
        app.command(name)(module.command)
    app.callback()(_version_option)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit()


def _version_option(
    version: bool = typer.Option(
        False, "--version", help="Print the version and stop.", is_eager=True, callback=_print_version
    ),
) -> None:
    """Train and certify rRCM (Robust Representation Consistency Model, ICLR 2025)."""


def main() -> None:
    """Entry point of the console script."""
    # Read when torch is imported: turns that a thread of GNU OpenMP spins before it sleeps. The default, 300 000, makes
    # a CPU run many times slower as soon as another program wants a core, too.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # DeepSpeed calls collectives by the names that newer versions of torch speak against, at every one of them.
    warnings.filterwarnings("ignore", r"`?torch\.distributed\..* is deprecated", FutureWarning)
    try:
        enter(build_app())
    except SystemExit as end:
        if os.environ.get("WORLD_SIZE", "1") == "1":
            raise
        # Threads of the communication libraries may abort a rank while Python winds down, and hide its exit code.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


if __name__ == "__main__":
    main()
