"""What the agent does about a plan, and what it only tells. No I/O.

What is owed (declared or destroyed, and not done since a target was out of reach or a command was killed) is always
done. What somebody else undid or overwrote is mended where the policy says `restore`, and told where it says `report`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from garrison.fleet.drift import Drift, find_drift_everywhere
from garrison.fleet.observation import Sighting
from garrison.fleet.plan_values import Action, Plan
from garrison.store.records import Key, Resource

__all__ = ["Duties", "duties"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """`act`: to be executed. `bury`: adapters that get a tombstone. `tell`: drift that leaves the record as it is."""

    act: tuple[Action, ...] = ()
    bury: tuple[Drift, ...] = ()
    tell: tuple[Drift, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.act or self.bury or self.tell)


def duties(
    drafted: Plan,
    owned: Iterable[Resource],
    sightings: Iterable[Sighting],
    *,
    restore: bool,
    hopeless: Collection[Key] = (),
    told: Mapping[Key, str | None] | None = None,
) -> Duties:
    """What is to be done now.

    Args:
        drafted: made with `force` where `restore`.
        hopeless: what is left alone for now: it failed for good, or somebody undoes it each time.
        told: drift that has been told: the path that is served, by key.
    """
    told = told or {}
    found = find_drift_everywhere(owned, sightings)
    return Duties(
        act=tuple(
            action
            for action in drafted.actions
            if (action.acts or action.records)
            and (restore or not action.drift or _back(action))
            and action.key not in hopeless
        ),
        bury=tuple(one for one in found if one.kind == "missing" and one.resource.operation.serves),
        tell=tuple(
            one
            for one in found
            if one.observed is not None
            and one.resource.operation.serves
            and not (one.resource.key in told and told[one.resource.key] == one.observed.root)
        ),
    )


def _back(action: Action) -> bool:
    """Whether what was proved absent is served as declared again: without our record of it, the next loss would tell
    nothing."""
    return action.records and action.recorded is not None and not action.recorded.operation.serves
