"""The instances of a data directory as they are known while no server runs on it: the database, and what lives."""

from dataclasses import dataclass
from pathlib import Path

from garrison.base.identity import ProcessId
from garrison.base.presence import is_missing
from garrison.base.settings import Settings
from garrison.instances.stored import StoredInstances
from garrison.instances.values.record import InstanceRecord
from garrison.instances.values.state import State
from garrison.launch.run.detached import lives, read_status
from garrison.store.sql.address import parse_address
from garrison.store.sql.store import open_store

__all__ = ["StoredInstance", "log_of", "main_of", "state_without_server", "stored_instances"]


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """An instance without a server.

    Attributes:
        pid: of its engine; None where that does not run.
    """

    record: InstanceRecord
    state: State
    reason: str
    pid: int | None


def stored_instances(settings: Settings) -> list[StoredInstance]:
    """The instances of this machine, by name. A database that does not exist has none, and is not made.

    Raises:
        GarrisonError: the database cannot be opened.
    """
    path = parse_address(settings.database).path
    if path is not None and is_missing(path):
        return []
    store = open_store(settings.database)
    try:
        records = StoredInstances(store, settings.node_name).load()
    finally:
        store.close()
    return sorted((_found(settings, one) for one in records), key=lambda one: one.record.spec.name)


def log_of(settings: Settings, name: str) -> Path:
    """The log of an instance."""
    return settings.data_dir / "instances" / name / "log"


def main_of(settings: Settings, name: str) -> ProcessId | None:
    """The main process of an instance's engine, by its status file; it may have ended."""
    status = read_status(settings.data_dir / "instances" / name)
    return None if status is None else status.main


def state_without_server(stored: State, reason: str, *, alive: bool) -> tuple[State, str]:
    """The state of an instance, and why, from what was stored last and from whether its engine lives. Pure."""
    if alive:
        return (stored, reason) if stored.holds_engine else (State.RUNNING, "its engine runs")
    if stored.holds_engine or stored is State.RESTARTING:
        return State.STOPPED, "it ended while no server ran"
    return stored, reason


def _found(settings: Settings, record: InstanceRecord) -> StoredInstance:
    main = main_of(settings, record.spec.name)
    alive = main is not None and lives(main)
    state, reason = state_without_server(record.condition.state, record.condition.reason, alive=alive)
    return StoredInstance(record, state, reason, main.pid if alive and main is not None else None)
