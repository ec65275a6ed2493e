"""`garrison instance create`."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from garrison.base.errors import UsageError
from garrison.base.home import home_directory
from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.server.instance.arguments import Name, StartTimeout
from garrison.cli.server.instance.calls import Instance, path_of, print_notes
from garrison.cli.server.instance.documents import options_in, read_file, read_text
from garrison.cli.server.instance.options import Flags, Options, absolute_model, from_line
from garrison.cli.server.instance.starting import shown_start
from garrison.cli.server.options import ServerUrl, client
from garrison.cli.standard_input import standard_input
from garrison.engines.llama_router import is_router

__all__ = ["create"]

_MOST_CHARACTERS = 1024 * 1024


def create(
    context: typer.Context,
    name: Name,
    command: Annotated[
        str | None,
        typer.Argument(metavar="COMMAND", help="A command line in quotes; - reads standard input.", show_default=False),
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", "-e", help="vllm (the default), llama_cpp, mlx_lm, custom or sim.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A name, a directory, or a file.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option of the engine; repeatable."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", metavar="FILE", help="A preset of llama-server, which loads the models in it."),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", min=0, max=65535, help="A fixed port. Default: one of the range.")
    ] = None,
    idle: Annotated[
        str | None, typer.Option("--idle", metavar="TIME", help="Stop it after this time without requests: 30m, never.")
    ] = None,
    pin: Annotated[bool | None, typer.Option("--pin/--no-pin", help="Never stop it to make room.")] = None,
    group: Annotated[str | None, typer.Option(help="A group with a limit of its own.")] = None,
    devices: Annotated[str | None, typer.Option(metavar="LIST", help="GPUs by index or UUID: 0,1; or auto.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="What it takes, instead of measuring it.")] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", metavar="NAME=VALUE", help="A variable for it; NAME alone passes on your own; repeatable."
        ),
    ] = None,
    on_demand: Annotated[
        bool | None, typer.Option("--on-demand/--no-on-demand", help="A request starts it. Default: yes.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", metavar="FILE", help="JSON or YAML of an export; - reads standard input."),
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Start it, and wait until it answers.")] = False,
    timeout: StartTimeout = None,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Create an instance, from flags, from a file, or from the command line that you have.

    A command line goes behind -- or into quotes: `vllm serve …`, llama-server, mlx_lm.server, `docker run … IMAGE …`,
    also with variables in front. Flags go over what it says.
    """
    flags = Flags(
        engine=engine, model=model, options=option or (), port=port, idle=idle, pin=pin, group=group, devices=devices,
        memory=memory, env=env or (), on_demand=on_demand, environ=os.environ,
        preset_ini=None if preset is None else read_text(preset)[1],
    )  # fmt: skip
    base, said = _base(command, context.obj or (), file, engine)
    options = flags.over(base)
    with client(server) as there:
        if there.local:
            options = absolute_model(options, str(Path.cwd()), str(home_directory() or "/"))
        made: Instance = there.call("POST", path_of(name), body=options)
        if not json:
            print_notes(made, said)
        if start:
            begun = there.call("POST", path_of(name, "start"))
            return shown_start(there, begun, wait=True, timeout=timeout, json=json)
    if json:
        print(answer(made))
        return 0
    print(f"created {name}: {options['backend_type']}, {_serves(options)}")
    starts = made["options"].get("on_demand_start")
    print(
        f"a request for it starts it, or `garrison instance start {name}`"
        if starts
        else f"garrison instance start {name}"
    )
    return 0


def _serves(options: Options) -> str:
    engine_options = options.get("backend_options") or {}
    if is_router(options["backend_type"], engine_options, preset=bool(options.get("preset_ini"))):
        return "a router"
    return str(engine_options.get("model") or "its command")


def _base(
    command: str | None, rest: tuple[str, ...], file: str | None, engine: str | None
) -> tuple[Options, tuple[str, ...]]:
    """What the flags go over, and what was said about it."""
    if sum((command is not None, bool(rest), file is not None)) > 1:
        raise UsageError(
            "give a command line or a file, once", hint="garrison instance create NAME -- vllm serve MODEL"
        )
    if file is not None:
        return options_in(read_file(file), file), ()
    text = shlex.join(rest) if rest else standard_input(_MOST_CHARACTERS) if command == "-" else command
    if text is None:
        return {}, ()
    found, notes = from_line(text, engine)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return found, notes
