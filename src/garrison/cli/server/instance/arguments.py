"""Arguments that the commands about instances share."""

from typing import Annotated

import typer

__all__ = ["Follow", "Lines", "Name", "NoWait", "StartTimeout", "Yes"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="The instance.", show_default=False)]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once; the start goes on.")]
StartTimeout = Annotated[
    float | None,
    typer.Option("--timeout", "-t", min=0, help="Seconds to wait. Default: as long as the start makes progress."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")]
Lines = Annotated[int, typer.Option("--lines", "-n", min=0, max=100_000, help="How many of the last lines.")]
