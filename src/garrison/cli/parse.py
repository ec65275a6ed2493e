"""`garrison parse`."""

import json as json_module
import sys
from typing import Annotated, Any

import typer

from garrison.base.errors import UsageError
from garrison.cli.options import app as make_app

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
    variables in front, several lines with backslashes, an ExecStart= line, a `command:` list. Nothing is run. Options
    that the engine's catalogue does not know are kept in `extra_args`, with a warning on standard error.
    """
    from garrison.engines import registry
    from garrison.engines.catalogue import check_args
    from garrison.engines.options import to_options
    from garrison.engines.parse.command import parse_command
    from garrison.engines.parse.pasted import unwrap

    text = _text(command, context.obj or ())
    found = parse_command(unwrap(text), None if engine is None else registry.engine(engine).name)
    catalogue = registry.engine("vllm" if found.engine == "sim" else found.engine).catalogue()
    body: dict[str, Any] = {"backend_type": found.engine, "backend_options": to_options(found, catalogue)}
    if found.env:
        body["environment"] = dict(found.env)
    if found.container is not None:
        body["docker_enabled"] = True
    print(json_module.dumps(body, indent=2, ensure_ascii=False))
    for note in (*found.notes, *(finding.message for finding in check_args(catalogue, found.args))):
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
    return sys.stdin.read(1024 * 1024) if command == "-" else command
