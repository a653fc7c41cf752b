"""`python -m shards`: build, verify and look at datasets of shards."""

import typer

from rrcm_dist.cli.door import enter
from shards import build_commands, info_command, verify_command

PROGRAM = "python -m shards"


def build_app() -> typer.Typer:
    """The typer application with every command."""
    app = typer.Typer(
        help="Datasets as WebDataset shards with an index: build, verify, info.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.add_typer(build_commands.app, name="build")
    app.command("verify")(verify_command.command)
    app.command("info")(info_command.command)
    return app


def main() -> None:
    """Entry point of `python -m shards`."""
    app = build_app()
    enter(lambda: app(prog_name=PROGRAM))


if __name__ == "__main__":
    main()
