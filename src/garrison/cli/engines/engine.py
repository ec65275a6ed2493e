"""`garrison engine`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from garrison.base.settings import Settings
from garrison.cli.asker import confirm
from garrison.cli.engines.views.install_steps import install_steps
from garrison.cli.json_answer import answer
from garrison.cli.needs.here import Force, engine_is_needed, unless_needed
from garrison.cli.options import Executable, Json, Offline, settings
from garrison.cli.options import app as make_app
from garrison.cli.views.table import print_table
from garrison.engines import registry
from garrison.engines.environments import environment_of, environments, in_use
from garrison.engines.environments import use as use_environment
from garrison.engines.install.installer import InstallRequest
from garrison.engines.install.installer import install as install_engine
from garrison.engines.install.installer import remove as remove_environment

if TYPE_CHECKING:
    from garrison.engines.catalogue import Catalogue, Option

app = make_app("Install, list, choose, describe and remove engines.", no_args_is_help=True)

Engine = Annotated[str, typer.Argument(help="vllm, llama_cpp or mlx_lm.")]
Name = Annotated[str, typer.Argument(metavar="VERSION", help="As `garrison engine list` shows it: 0.32.0+cpu.")]


@app.command()
def install(
    engine: Engine,
    version: Annotated[str | None, typer.Option(help="Default: the version Garrison was tested with.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda if there is an NVIDIA driver.")] = "auto",
    find_links: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="A directory of wheels to install from; repeatable.")
    ] = None,
    extra_index_url: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="An additional package index; repeatable.")
    ] = None,
    offline: Offline = False,
    again: Annotated[bool, typer.Option("--again", help="Reinstall what is already installed.")] = False,
    json: Json = False,
) -> int:
    """Install an engine into an environment of its own.

    The first environment of an engine becomes the one in use. Without a network:
    --offline --find-links DIR, with the wheels in DIR.
    """
    values = settings()
    request = InstallRequest(
        engine=registry.engine(engine).name,
        version=version,
        device=device,
        find_links=tuple(find_links or ()),
        extra_indexes=tuple(extra_index_url or ()),
        offline=offline,
        again=again,
    )
    with install_steps(engine) as show:
        made = install_engine(request, data_dir=values.data_dir, environ=os.environ, progress=show)
    if json:
        print(answer(made.to_json()))
    else:
        print(f"{made.engine} {made.name} at {made.executable}")
    return 0


@app.command("list")
def list_(json: Json = False) -> int:
    """List installed environments and mark the ones in use."""
    data_dir = settings().data_dir
    found = [item for name in registry.names() for item in environments(data_dir, name)]
    chosen = {name: in_use(data_dir, name) for name in registry.names()}
    if json:
        print(answer({"engines": [{**item.to_json(), "in_use": item == chosen[item.engine]} for item in found]}))
        return 0
    rows = [
        (item.engine, item.name, "✓" if item == chosen[item.engine] else "", item.installed_at, str(item.path))
        for item in found
    ]
    empty = "no engine installed; `garrison engine install vllm` installs one"
    print_table(("engine", "version", "in use", "installed", "path"), rows, empty=empty)
    return 0


@app.command()
def use(engine: Engine, version: Name, json: Json = False) -> int:
    """Choose the environment that `garrison serve` uses."""
    chosen = use_environment(settings().data_dir, registry.engine(engine).name, version)
    if json:
        print(answer({**chosen.to_json(), "in_use": True}))
    else:
        print(f"{chosen.engine} {chosen.name} is now in use")
    return 0


@app.command()
def remove(
    engine: Engine,
    version: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    force: Force = False,
    json: Json = False,
) -> int:
    """Remove an environment.

    The only one of an engine that an instance needs stays, unless --force says otherwise.
    """
    data_dir = settings().data_dir
    found = environment_of(data_dir, registry.engine(engine).name, version)
    if len(environments(data_dir, found.engine)) == 1:
        unless_needed(f"{found.engine} {found.name}", lambda: engine_is_needed(found.engine), force=force)
    if not yes:
        confirm(f"Remove {found.engine} {found.name} at {found.path}?")
    was_in_use = in_use(data_dir, found.engine) == found
    remove_environment(data_dir, found.engine, found.name)
    now = in_use(data_dir, found.engine)
    if json:
        print(answer({**found.to_json(), "now_in_use": None if now is None else now.name}))
        return 0
    print(f"removed {found.engine} {found.name}")
    if was_in_use:
        again = f"none is left; `garrison engine install {found.engine}` installs one"
        print(again if now is None else f"{now.engine} {now.name} is now in use")
    return 0


@app.command()
def describe(
    engine: Engine,
    executable: Executable = None,
    option: Annotated[
        str | None, typer.Option("--option", "-o", help="Show only this option; with or without dashes.")
    ] = None,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="Show the catalogue shipped with Garrison; query no program.")
    ] = False,
    json: Json = False,
) -> int:
    """Show an engine's options, read from its own --help.

    With --json, print them as a catalogue in the format that Garrison ships.
    """
    catalogue = _catalogue(engine, executable, settings(), shipped=shipped)
    if option is not None:
        catalogue = replace(catalogue, options=_only(catalogue, option))
    if json:
        from garrison.engines.catalogue import to_json

        print(answer(to_json(catalogue)))
        return 0
    rows = [
        (" ".join(item.spellings), item.type or "", "" if item.default is None else str(item.default), item.help)
        for item in catalogue.options
    ]
    print_table(("flag", "type", "default", f"{catalogue.engine} {catalogue.version}"), rows, empty="no options")
    return 0


def _only(catalogue: "Catalogue", name: str) -> "tuple[Option, ...]":
    """Return the option called `name`, with or without dashes; raise an error with a suggestion if there is none."""
    from garrison.base.errors import InvalidError
    from garrison.engines.argv import flag_of
    from garrison.engines.nearest import nearest_flag

    bare = name.lstrip("-")
    flag = flag_of(f"--{bare}").partition(".")[0]
    wanted = [name, flag, f"-{bare}"]
    options = [item for spelling in wanted for item in catalogue.options if spelling in item.spellings]
    if not options:
        close = nearest_flag(catalogue, flag)
        raise InvalidError(f"{catalogue.engine} has no option {flag}", hint=f"Did you mean {close}?" if close else None)
    return (options[0],)


def _catalogue(engine: str, executable: Path | None, values: Settings, *, shipped: bool) -> "Catalogue":
    kind = registry.engine(engine)
    if shipped:
        return kind.catalogue()
    from garrison.cli.views.spinning import spinning
    from garrison.engines.executable import locate
    from garrison.engines.help.describe import describe as describe_engine

    explicit = str(executable) if executable is not None else None
    located = locate(kind, data_dir=values.data_dir, environ=os.environ, explicit=explicit)
    with spinning(f"reading the options of {kind.title}", str(located.path)):
        return describe_engine(kind, located.path)
