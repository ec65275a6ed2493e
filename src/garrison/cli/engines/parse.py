"""`garrison parse`."""

import json as json_module
import sys
from typing import Annotated

import typer

from garrison.base.errors import UsageError
from garrison.cli.options import app as make_app
from garrison.cli.standard_input import standard_input

app = make_app("Translate a command line that starts an engine into options.")


@app.command()
def parse(
    command: Annotated[
        str | None, typer.Argument(metavar="COMMAND", help="The command line, in quotes; - reads standard input.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="The engine, where the command line has only arguments.")
    ] = None,
    context: typer.Context = None,  # type: ignore[assignment]  # Typer fills it in
) -> int:
    """Translate a command line that starts an engine into options, as JSON.

    Understands `vllm serve MODEL …`, llama-server, mlx_lm.server, `python -m …`, `docker run … IMAGE`,
    variables and launchers in front, several lines with backslashes, a shell's `-c`, a systemd unit, a service of a
    compose file, a container of a Kubernetes manifest. Nothing is run. Launchers, redirections and other commands are
    left out, with a note on standard error. Options that the engine's catalogue does not know are kept in
    `extra_args`, with a warning there.
    """
    from garrison.engines.parsed_backend import parse_backend

    found = parse_backend(_text(command, context.obj or ()), engine)
    print(json_module.dumps(found.to_json(), indent=2, ensure_ascii=False))
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _text(command: str | None, rest: tuple[str, ...]) -> str:
    import shlex

    if rest:
        if command is not None:
            raise UsageError("give the command line once", hint="garrison parse -- vllm serve MODEL …")
        return shlex.join(rest)
    if command is None:
        raise UsageError("no command line", hint="garrison parse 'vllm serve MODEL …'")
    return standard_input(1024 * 1024) if command == "-" else command
