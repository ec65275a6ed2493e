"""What on this machine still needs a model, an adapter or an engine."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from garrison.base.errors import GarrisonError
from garrison.base.settings import Settings
from garrison.cli.needs.need import Need, engine_needs, instance_needs, refusal, served_needs, stack_needs
from garrison.cli.options import settings

__all__ = ["Force", "engine_is_needed", "files_are_needed", "stacks_need", "unless_needed"]

Force = Annotated[bool, typer.Option("--force", help="Remove it although something still needs it.")]


def unless_needed(what: str, find: Callable[[], list[Need]], *, force: bool) -> None:
    """Return if nothing needs it; with `force`, only warn of what does.

    Raises:
        ConflictError: something needs it.
        GarrisonError: what needs it cannot be found out.
    """
    try:
        needs = find()
    except GarrisonError as error:
        if not force:
            raise
        print(f"warning: nothing is known of what needs {what}: {error.message}", file=sys.stderr)
        return
    if needs and not force:
        raise refusal(what, needs)
    for need in needs:
        print(f"warning: {need.who}: {need.cure}", file=sys.stderr)


def files_are_needed(path: Path, names: tuple[str, ...] = ()) -> list[Need]:
    """What runs, or will, with the files at a path, or with the model of these names."""
    from garrison.cli.server.running import this_machine
    from garrison.launch.served import served_engines

    values, processes = _values(), this_machine()
    engines = []
    for one in served_engines(values, processes):
        process = processes.read(one.main.pid)
        if process is not None and process.id == one.main:
            engines.append((one.name, one.main.pid, process.argv))
    places = _places(path)
    return [*served_needs(engines, places), *instance_needs(_instances(values), places, names)]


def stacks_need(path: Path) -> list[Need]:
    """Which stacks and targets have the adapter at a path. A database that is not there has none, and is not made."""
    from garrison.store.sql.address import parse_address
    from garrison.store.sql.store import open_store

    database = settings("fleet").database
    file = parse_address(database).path
    if file is not None and not file.exists():
        return []
    store = open_store(database)
    try:
        return stack_needs(store.targets(), store.resources(), store.stacks(), _places(path))
    finally:
        store.close()


def engine_is_needed(engine: str) -> list[Need]:
    """Which instances need an engine of which this is the only environment."""
    return engine_needs(_instances(_values()), engine)


def _values() -> Settings:
    return replace(settings("server", "preflight"), server_url=None, server_key=None)  # what is here, and nowhere else


def _instances(values: Settings) -> list[dict[str, Any]]:
    from garrison.cli.server.running import instances_here

    return instances_here(values)[0]


def _places(path: Path) -> tuple[Path, ...]:
    """The path as it is called, and as an engine may have been told it: without links."""
    return tuple({path.absolute(), path.resolve()})
