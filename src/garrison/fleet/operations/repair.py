"""One stack made equal to what was last applied, as far as the policy allows: what the agent does when it must act."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from garrison.base.errors import InvalidError
from garrison.fleet.context import Fleet
from garrison.fleet.execute.commands import action_records, new_command
from garrison.fleet.execute.steps import ExecuteOptions
from garrison.fleet.observe.drift import Drift
from garrison.fleet.operations.apply import carry, tidy
from garrison.fleet.operations.reconcile import recall
from garrison.fleet.operations.survey import Survey, decide
from garrison.fleet.plan.agent_policy import duties
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.plan.planner import check_models
from garrison.fleet.values import events
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.failure import FailureCode
from garrison.fleet.values.view import FleetView, Outcome
from garrison.store.records import ActionState, Event, Key

__all__ = ["Mended", "mend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """How it ended.

    Attributes:
        told: drift that was told and not mended.
        owed: actions that still wait for a target.
    """

    survey: Survey
    outcomes: tuple[Outcome, ...] = ()
    told: tuple[Drift, ...] = ()
    owed: int = 0
    failed: dict[Key, str] = field(default_factory=dict)
    """What failed for good, with the reason."""


async def mend(
    fleet: Fleet,
    stack: str,
    view: FleetView,
    *,
    only: Collection[str] | None = None,
    hopeless: Collection[Key] = (),
    told: Mapping[Key, str | None] | None = None,
    running: set[str] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Mended | None:
    """Look at the stack's targets and do what is due. None when the stack is gone. Call it under the stack's lease.

    Args:
        only: these targets alone; nothing is read of any other.
        stopping: asked before each action; once true, what has not begun is left to be done later.
        hopeless, told: see `duties`.
        running: ids of commands that this process has under way; the one begun here is in it for its time.
    """
    record = await fleet.read(fleet.store.stack, stack, at=only)
    if record is None:
        return None
    running = set() if running is None else running
    declaration = Declaration.from_json(record.declaration)
    restore = declaration.policy.on_drift == "restore"
    found = _of_the_declared_base(
        await recall(fleet, declaration, view, only=only, as_applied=True, running=running), view
    )
    drafted = await decide(
        fleet, found, mode="destroy" if record.ending else "reconcile", options=PlanOptions(force=restore)
    )
    due = duties(
        drafted, found.owned, found.sightings.values(), restore=restore, hopeless=hopeless, told=told
    )  # fmt: skip
    if due.tell:
        await fleet.db(fleet.store.add_events, [_told(one) for one in due.tell])
    owed = sum(action.owed for action in drafted.blocked)
    failed = {
        one.key: one.failure.message
        for one in drafted.blocked
        if one.failure and not one.failure.recoverable and not one.conflict  # others may let go of it
    }
    if not due.act:
        await tidy(fleet, stack)
        return Mended(survey=found, told=due.tell, owed=owed, failed=failed)
    command = new_command(stack, "restore", fleet.clock.now())
    running.add(command.id)
    try:
        await fleet.db(fleet.store.begin, command, action_records(command.id, due.act))
        outcomes = await carry(fleet, found, command, due.act, view, ExecuteOptions(stopping=stopping))
    finally:
        running.discard(command.id)
    if restored := [_restored(fleet, stack, command.id, one) for one in outcomes if _mended_drift(one)]:
        await fleet.db(fleet.store.add_events, restored)
    await tidy(fleet, stack)
    return Mended(
        survey=found,
        outcomes=tuple(outcomes),
        told=due.tell,
        owed=owed + sum(one.state is ActionState.SKIPPED for one in outcomes),
        failed=failed | {one.action.key: one.failure.message for one in outcomes if _hopeless(one) and one.failure},
    )


def _of_the_declared_base(found: Survey, view: FleetView) -> Survey:
    """`found` without the looks at targets that serve another base model than a declared one: nothing is done there,
    and no other target waits for it."""
    wrong = set()
    for model in found.declaration.models:
        try:
            check_models([model], found.sightings)
        except InvalidError as error:
            wrong.add(model.target)
            view.note(error.message)
    return replace(found, sightings={name: seen for name, seen in found.sightings.items() if name not in wrong})


def _mended_drift(one: Outcome) -> bool:
    return one.state is ActionState.DONE and one.action.drift and one.action.acts


def _hopeless(one: Outcome) -> bool:
    """What somebody else has under the name now, others may let go of: the next plan tells."""
    if one.state is not ActionState.FAILED or one.failure is None or one.failure.recoverable:
        return False
    return one.failure.code not in (FailureCode.ALREADY_EXISTS, FailureCode.RESOURCE_CONFLICT)


def _restored(fleet: Fleet, stack: str, command: str, one: Outcome) -> Event:
    after: dict[str, Any] = {"seconds": round(one.seconds, 3)}
    return Event(
        at=fleet.clock.now(),
        kind=events.RESTORED,
        stack=stack,
        target=one.action.target,
        name=one.action.name,
        cause=one.action.reason,
        after=after,
        command=command,
    )


def _told(one: Drift) -> Event:
    assert one.observed is not None
    return Event(
        at=one.seen.at,
        kind=events.DRIFT,
        stack=one.resource.stack,
        target=one.resource.key.target,
        name=one.resource.key.name,
        cause=one.kind,
        before={"served_path": one.resource.served_path, "parent": one.resource.parent},
        after={"served_path": one.observed.root, "parent": one.observed.parent},
    )
