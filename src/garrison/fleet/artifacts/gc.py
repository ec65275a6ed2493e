"""Deletes unused entries of the adapter stores: `garrison adapters gc`."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garrison.base.clock import Clock
from garrison.fleet.artifacts.disk import default_store, store_root
from garrison.fleet.artifacts.entry import Entry, digest_of
from garrison.fleet.artifacts.pins import Pin, Pins, pins
from garrison.fleet.artifacts.store import AdapterStore
from garrison.fleet.values.target import TargetSpec
from garrison.store.fleet_store import FleetStore

__all__ = ["GRACE_SECONDS", "Collected", "Kept", "collect", "collect_all", "read_pins", "sort_out"]

GRACE_SECONDS = 3600.0
"""How long an entry stays after it was staged or asked for: an apply may have staged it and not recorded it yet."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry that stays. `pins` is empty if it is only too recent to be deleted."""

    entry: Entry
    pins: tuple[Pin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was deleted from one store, or would be.

    Attributes:
        refused: why nothing was deleted; None otherwise.
        bytes: bytes freed on disk. Files with hard links elsewhere free nothing.
        leftovers: number of directories that killed commands had left.
    """

    root: Path
    freed: tuple[Entry, ...] = ()
    kept: tuple[Kept, ...] = ()
    leftovers: int = 0
    refused: str | None = None

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.freed)

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`."""
        return {
            "store": str(self.root),
            "refused": self.refused,
            "bytes_freed": self.bytes,
            "leftovers": self.leftovers,
            "freed": [{"entry": entry.path.name, "bytes": entry.bytes} for entry in self.freed],
            "kept": [
                {"entry": kept.entry.path.name, "fresh": not kept.pins, "for": [pin.to_json() for pin in kept.pins]}
                for kept in self.kept
            ],
        }


def collect_all(
    store: FleetStore, data_dir: Path, clock: Clock, *, dry_run: bool = False, grace: float = GRACE_SECONDS
) -> list[Collected]:
    """Delete unused entries from the store of every known target, and from the default store.

    Raises:
        LockedError: another command held a store for too long.
        InvalidError: a store cannot be written.
    """
    specs = (TargetSpec.from_json(record.name, record.spec) for record in store.targets())
    roots = {default_store(data_dir)} | {root for spec in specs if (root := store_root(spec, data_dir)) is not None}
    pinned = read_pins(store)
    identity = store.identity()
    stores = [AdapterStore(root, identity, clock=clock) for root in sorted(roots) if root.is_dir()]
    return [collect(one, identity, pinned, clock, dry_run=dry_run, grace=grace) for one in stores]


def read_pins(store: FleetStore) -> Pins:
    """Return everything that the database knows to be in use."""
    stacks, resources = store.stacks(), store.resources()
    names = {stack.name for stack in stacks} | {one.stack for one in resources} | {one.stack for one in store.leases()}
    running = [action for name in sorted(names) for _, actions in store.unfinished(name) for action in actions]
    return pins(store.targets(), resources, stacks, running)


def sort_out(entries: Iterable[Entry], pinned: Pins, fresh_after: float) -> tuple[list[Entry], list[Kept]]:
    """Return the entries to delete, and those to keep with the reasons. Pure.

    Args:
        fresh_after: Unix seconds; an entry used since then is kept.
    """
    going: list[Entry] = []
    kept: list[Kept] = []
    for entry in entries:
        held = tuple(pinned.get(digest_of(entry.path.name) or "", ()))
        if held or entry.used_at > fresh_after:
            kept.append(Kept(entry, held))
        else:
            going.append(entry)
    return going, kept


def collect(
    store: AdapterStore, identity: str, pinned: Pins, clock: Clock, *, dry_run: bool, grace: float
) -> Collected:
    """Delete unused entries from one store.

    `pinned` is read before the lock is taken. An entry that is staged in between is recent, and so it stays.
    """
    owners = store.owners()
    if owners - {identity}:
        return Collected(root=store.root, refused=_foreign(store, len(owners - {identity})))
    if not owners:
        return Collected(root=store.root)
    fresh_after = clock.now().timestamp() - grace
    if dry_run:
        going, kept = sort_out(store.entries(), pinned, fresh_after)
        left = len(store.leftovers(fresh_after))
        return Collected(root=store.root, freed=tuple(going), kept=tuple(kept), leftovers=left)
    with store.locked():
        going, kept = sort_out(store.entries(), pinned, fresh_after)
        leftovers = store.leftovers(fresh_after)
        trash = [store.trash(entry.path) for entry in going]
    # After the lock is released: a deletion may take long, and what was renamed cannot be loaded from any more.
    for path in (*leftovers, *trash):
        shutil.rmtree(path, ignore_errors=True)  # the next run finds what is left
    return Collected(root=store.root, freed=tuple(going), kept=tuple(kept), leftovers=len(leftovers))


def _foreign(store: AdapterStore, others: int) -> str:
    who = "another database" if others == 1 else f"{others} other databases"
    return (
        f"{who} staged here too, and only it knows what its targets serve. If it no longer exists, remove its line "
        f"from {store.owners_file}."
    )
