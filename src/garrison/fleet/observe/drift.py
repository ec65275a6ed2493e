"""Finds drift: differences between what is served and what was last applied. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from garrison.fleet.values import events
from garrison.fleet.values.observation import Served, Sighting
from garrison.store.records import Event, Operation, Resource

__all__ = ["Drift", "find_drift", "find_drift_everywhere", "tombstone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One adapter that is not served as it was applied.

    Attributes:
        kind: `missing` (proved absent), `path` (served from another path), `base` (attached to another base model) or
            `content` (other files at the path it was applied from).
        detail: what happened, if `kind` does not say it.
    """

    kind: str
    resource: Resource
    observed: Served | None
    seen: Sighting
    detail: str = ""

    @property
    def words(self) -> str:
        """Description for display."""
        if self.detail:
            return self.detail
        if self.observed is None:
            return "no longer served"
        if self.kind == "path":
            return f"applied from {self.resource.served_path}, served from {self.observed.root}"
        return f"applied on {self.resource.parent}, attached to {self.observed.parent}"


def find_drift(resources: Iterable[Resource], seen: Sighting) -> list[Drift]:
    """Return the drift of the owned `resources` on the target of `seen`.

    An unknown target has no drift: unknown is not absent. On a target with run-time LoRA off nothing counts as missing,
    since a missing adapter proves nothing there. Nor does one that is loaded on demand: the next request loads it.
    """
    if not seen.known:
        return []
    found = []
    for resource in resources:
        observed = seen.adapter(resource.key.name)
        if observed is None:
            if seen.lora_routes is False or resource.spec.get("on_demand"):
                continue
            found.append(Drift(kind="missing", resource=resource, observed=None, seen=seen))
        elif observed.root != resource.served_path:
            found.append(Drift(kind="path", resource=resource, observed=observed, seen=seen))
        elif resource.parent is not None and observed.parent != resource.parent:
            found.append(Drift(kind="base", resource=resource, observed=observed, seen=seen))
    return found


def find_drift_everywhere(resources: Iterable[Resource], sightings: Iterable[Sighting]) -> list[Drift]:
    """Run `find_drift` for many targets, each with its own resources."""
    here: dict[str, list[Resource]] = {}
    for one in resources:
        here.setdefault(one.key.target, []).append(one)
    return [drift for seen in sightings for drift in find_drift(here.get(seen.target, ()), seen)]


def tombstone(drift: Drift, cause: str) -> tuple[Resource, Event]:
    """Return the version that records a proved absence, and the event that reports it."""
    gone = drift.resource
    at = drift.seen.at
    told = Event(
        at=at,
        kind=events.DRIFT,
        stack=gone.stack,
        target=gone.key.target,
        name=gone.key.name,
        cause=cause,
        before={"served_path": gone.served_path, "parent": gone.parent},
    )
    return replace(gone, operation=Operation.LOST, at=at, cause=cause, command=None), told
