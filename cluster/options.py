"""Arguments that several commands share."""

from typing import Annotated

import typer

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or job number.", show_default=False)]
