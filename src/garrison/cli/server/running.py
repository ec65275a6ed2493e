"""One list of what runs here: instances of the server, and engines of `garrison serve`."""

from collections.abc import Sequence
from typing import Any, Literal

from garrison.base.errors import ConflictError, NotFoundError
from garrison.base.settings import Settings
from garrison.cli.server.client import ServerClient
from garrison.cli.server.instance.calls import Instance, all_instances
from garrison.launch.served import ServedEngine, served_engines
from garrison.processes.process import Processes

__all__ = ["Found", "Runs", "chosen", "instances_here", "this_machine", "what_runs"]

Found = tuple[Literal["instance"], str] | tuple[Literal["serve"], ServedEngine]
Runs = dict[str, Any]
"""One row: `kind` (`instance` or `serve`), `name`, `state`, `since`, `engine`, `model`, `port`, `pid`, `memory_bytes`,
`requests`."""


def this_machine() -> Processes:
    """The processes of this machine."""
    from garrison.preflight.machine import Machine

    return Machine(lambda _: None).processes


def instances_here(settings: Settings) -> tuple[list[Instance], bool]:
    """The instances, and whether a server told them; without one they come from the database.

    Raises:
        GarrisonError: another server was asked for, which does not answer; or the database cannot be opened.
    """
    with ServerClient(settings) as server:
        if not server.local or server.answers():
            return all_instances(server, local=True), True
    from garrison.server.offline import stored_instances

    return [_shown(one) for one in stored_instances(settings)], False


def what_runs(instances: Sequence[Instance], served: Sequence[ServedEngine]) -> list[Runs]:
    """The rows, instances first."""
    return [*(_row(one) for one in instances), *(_served_row(one) for one in served)]


def chosen(name: str, instances: Sequence[Instance], settings: Settings, processes: Processes) -> Found:
    """What people mean by `name`: an instance, or what a `garrison serve` runs, by name, port or pid.

    Raises:
        NotFoundError: nothing is called so.
        ConflictError: several are.
    """
    served = [] if settings.server_url is not None else list(served_engines(settings, processes))
    named = [one for one in served if one.is_called(name)]
    is_instance = any(one["name"] == name for one in instances)
    if is_instance and not named:
        return "instance", name
    if len(named) == 1 and not is_instance:
        return "serve", named[0]
    if not named and not is_instance:
        raise NotFoundError(f"nothing that runs here is called {name!r}", hint="`garrison ps` lists what there is.")
    raise ConflictError(
        f"{len(named) + is_instance} things are called {name!r}",
        hint="Name a `garrison serve` by its pid, and an instance with `garrison instance`.",
        details={"pids": [one.main.pid for one in named]},
    )


def _shown(one: Any) -> Instance:
    """A stored instance as the API shows one."""
    from garrison.api.instances.options import options_of

    record = one.record
    return {
        "name": record.spec.name,
        "state": str(one.state),
        "since": record.condition.since.isoformat(),
        "reason": one.reason,
        "port": record.port,
        "pid": one.pid,
        "options": options_of(record.spec),
    }


def _row(one: Instance) -> Runs:
    options = one["options"]
    return {
        "kind": "instance",
        "name": one["name"],
        "state": one["state"],
        "since": one.get("since"),
        "reason": one.get("reason"),
        "engine": options.get("backend_type"),
        "model": (options.get("backend_options") or {}).get("model") or None,
        "port": one.get("port"),
        "pid": one.get("pid"),
        "memory_bytes": sum((one.get("memory") or {}).values()) or None,
        "requests": one.get("requests"),
    }


def _served_row(one: ServedEngine) -> Runs:
    return {
        "kind": "serve",
        "name": one.name,
        "state": "running",
        "since": None if one.since is None else one.since.isoformat(),
        "reason": None,
        "engine": one.engine,
        "model": one.model or None,
        "port": one.port,
        "pid": one.main.pid,
        "memory_bytes": one.memory_bytes or None,
        "requests": None,
    }
