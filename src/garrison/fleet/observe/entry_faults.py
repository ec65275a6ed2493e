"""Faults of the adapter store entries that adapters are served from, and the drift that follows from them."""

from collections.abc import Iterable, Mapping
from itertools import islice

from garrison.fleet.artifacts.protocol import EntryFault
from garrison.fleet.context import Fleet
from garrison.fleet.observe.drift import Drift
from garrison.fleet.values.observation import Sighting
from garrison.store.records import Resource

__all__ = ["Faults", "content_drift", "entry_faults", "words"]

Faults = Mapping[str, EntryFault]
"""By served path."""

_AT_ONCE = 256
"""Paths per call: other work waits for the disk's thread meanwhile."""


async def entry_faults(fleet: Fleet, paths: Iterable[str]) -> dict[str, EntryFault]:
    """Return the faults of those `paths` that are entries of a store on this machine."""
    found: dict[str, EntryFault] = {}
    left = iter(sorted(set(paths)))
    while batch := list(islice(left, _AT_ONCE)):
        found |= await fleet.disk(fleet.artifacts.faults, batch)
    return found


def content_drift(resources: Iterable[Resource], sightings: Mapping[str, Sighting], faults: Faults) -> list[Drift]:
    """Return the drift of adapters whose path is as applied, but whose files have changed. Pure.

    An entry that shares its files with another directory is not drift yet: its content is still the same.
    """
    found = []
    for one in resources:
        fault, seen = faults.get(one.served_path), sightings.get(one.key.target)
        if fault in (None, EntryFault.SHARED) or seen is None or not seen.known:
            continue
        observed = seen.adapter(one.key.name)
        if observed is not None and observed.root == one.served_path:
            detail = words(one.served_path, fault)
            found.append(Drift(kind="content", resource=one, observed=observed, seen=seen, detail=detail))
    return found


def words(path: str, fault: EntryFault) -> str:
    """Describe the fault in a clause. Pure."""
    return f"its entry in the adapter store, {path}, {fault}"
