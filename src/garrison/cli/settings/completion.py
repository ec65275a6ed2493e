"""`garrison completion`."""

from typing import Annotated, Literal

import typer

from garrison.cli.options import app as make_app

app = make_app("Print a completion script for a shell.")


@app.command(
    epilog='bash, in ~/.bashrc: eval "$(garrison completion bash)". zsh: garrison completion zsh > DIR/_garrison, with '
    "DIR in $fpath. fish: garrison completion fish > ~/.config/fish/completions/garrison.fish. Write it again after an "
    "upgrade."
)
def completion(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.")]) -> int:
    """Print a script that completes commands, options and their values.

    It holds all the words, so that completing starts no program.
    """
    from garrison.cli.settings.views.completion import SCRIPTS
    from garrison.cli.settings.words import every_node

    print(SCRIPTS[shell](every_node()), end="")
    return 0
