"""Arguments that several commands share."""

from typing import Annotated

import typer

RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Run folder, job number, or submission id of a Ray job.", show_default=False),
]
