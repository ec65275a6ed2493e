"""What is wrong with the entries of adapter stores that adapters are served from, and what that means for each."""

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
"""Paths in one call: others wait for the disk's thread meanwhile."""


async def entry_faults(fleet: Fleet, paths: Iterable[str]) -> dict[str, EntryFault]:
    """Of those of `paths` that are entries of a store here, and not as they should be."""
    found: dict[str, EntryFault] = {}
    left = iter(sorted(set(paths)))
    while batch := list(islice(left, _AT_ONCE)):
        found |= await fleet.disk(fleet.artifacts.faults, batch)
    return found


def content_drift(resources: Iterable[Resource], sightings: Mapping[str, Sighting], faults: Faults) -> list[Drift]:
    """Adapters that are served from the path they were applied from, whose files are no longer those that were applied.
    What is only shared with another directory is no drift yet. Pure."""
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
    """The fault as a sentence without its full stop. Pure."""
    return f"its entry in the adapter store, {path}, {fault}"
