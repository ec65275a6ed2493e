"""Decides which actions of a plan the agent carries out, and which drift it only reports. No I/O.

Owed actions (declared or destroyed, but not done because a target was unreachable or a command was killed) are always
carried out. Outside changes are repaired if the policy is `restore`, and only reported if it is `report`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from garrison.fleet.observe.drift import Drift, find_drift_everywhere
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.plan import Action, ActionKind, Plan
from garrison.store.records import Key, Resource

__all__ = ["AgentWork", "agent_work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentWork:
    """The agent's work on one stack.

    Attributes:
        act: actions to execute.
        bury: drift that is recorded as a tombstone.
        tell: drift that is only reported; the record does not change.
        waits: an adapter is to be unloaded when its last request has ended.
    """

    act: tuple[Action, ...] = ()
    bury: tuple[Drift, ...] = ()
    tell: tuple[Drift, ...] = ()
    waits: bool = False

    def __bool__(self) -> bool:
        return bool(self.act or self.bury or self.tell)


def agent_work(
    drafted: Plan,
    owned: Iterable[Resource],
    sightings: Iterable[Sighting],
    *,
    restore: bool,
    hopeless: Collection[Key] = (),
    told: Mapping[Key, str | None] | None = None,
) -> AgentWork:
    """Select what to do now.

    Args:
        drafted: the plan, made with `force` if `restore`.
        owned: resources of the stack.
        sightings: the last observation of each target.
        restore: whether the policy is to repair drift.
        hopeless: adapters to skip for now, since they failed permanently or are undone each time.
        told: drift that was already reported, as the served path by key.
    """
    told = told or {}
    found = find_drift_everywhere(owned, sightings)
    return AgentWork(
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
        waits=any(action.gently and action.kind is ActionKind.KEEP for action in drafted.actions),
    )


def _back(action: Action) -> bool:
    """Return whether an adapter that was proved absent is served as declared again.

    It must be recorded, or its next loss would go unreported.
    """
    return action.records and action.recorded is not None and not action.recorded.operation.serves
