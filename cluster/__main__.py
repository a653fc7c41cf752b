"""`python -m cluster`: start runs, on this machine or on a cluster."""

import typer

from cluster import cancel_command, logs_command, resubmit_command, status_command, submit_command
from rrcm_dist.cli.door import enter

PROGRAM = "python -m cluster"


def build_app() -> typer.Typer:
    """The typer application with every command."""
    app = typer.Typer(
        help="Start training runs, certifications and whole papers, here or on a cluster, and see to them.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command("submit")(submit_command.command)
    app.command("status")(status_command.command)
    app.command("logs")(logs_command.command)
    app.command("cancel")(cancel_command.command)
    app.command("resubmit")(resubmit_command.command)
    app.callback()(_door)
    return app


def _door() -> None:
    """Start training runs, certifications and whole papers, here or on a cluster, and see to them."""


def main() -> None:
    """Entry point of `python -m cluster`."""
    app = build_app()
    enter(lambda: app(prog_name=PROGRAM))


if __name__ == "__main__":
    main()
