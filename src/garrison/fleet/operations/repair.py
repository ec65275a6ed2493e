"""Repairs a stack: makes its targets serve what was last applied, as far as the stack's policy allows."""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from garrison.base.errors import GarrisonError, InvalidError
from garrison.fleet.context import Fleet
from garrison.fleet.execute.commands import action_records, new_command
from garrison.fleet.execute.steps import ExecuteOptions
from garrison.fleet.observe.drift import Drift
from garrison.fleet.operations.apply import carry, tidy
from garrison.fleet.operations.reconcile import survey_and_settle
from garrison.fleet.operations.survey import Survey, decide
from garrison.fleet.plan.agent_policy import agent_work
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.plan.planner import check_models
from garrison.fleet.values import events
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.failure import FailureCode
from garrison.fleet.values.plan import Action
from garrison.fleet.values.view import FleetView, Outcome
from garrison.store.records import ActionState, Event, Key

__all__ = ["Repaired", "repair"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """How a repair ended.

    Attributes:
        outcomes: one per action.
        reported: drift that was reported and not repaired.
        owed: number of actions that still wait for a target.
        failed: adapters that failed permanently, with the reason.
        stalled: adapters that failed for a reason that may pass, although their target answers.
    """

    survey: Survey
    outcomes: tuple[Outcome, ...] = ()
    reported: tuple[Drift, ...] = ()
    owed: int = 0
    failed: dict[Key, str] = field(default_factory=dict)
    stalled: frozenset[Key] = frozenset()


async def repair(
    fleet: Fleet,
    stack: str,
    view: FleetView,
    *,
    only: Collection[str] | None = None,
    hopeless: Collection[Key] = (),
    told: Mapping[Key, str | None] | None = None,
    running: set[str] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Repaired | None:
    """Observe the stack's targets and carry out what is due. The caller holds the stack's lease.

    Returns None if the stack no longer exists.

    Args:
        only: names of the targets to repair; nothing is read about any other. All if None.
        hopeless, told: see `agent_work`.
        running: ids of commands that this process has in progress; contains the one begun here while it runs.
        stopping: checked before each action; once true, actions that have not begun stay owed.

    Raises:
        GarrisonError: the store failed.
    """
    record = await fleet.read(fleet.store.stack, stack, at=only)
    if record is None:
        return None
    running = set() if running is None else running
    outcomes: tuple[Outcome, ...] = ()
    stalled: frozenset[Key] = frozenset()
    declaration = Declaration.from_json(record.declaration)
    restore = declaration.policy.on_drift == "restore"
    found = await survey_and_settle(fleet, declaration, view, only=only, as_applied=True, running=running, stack=record)
    found = _of_the_declared_base(found, view)
    drafted = await decide(
        fleet, found, mode="destroy" if record.ending else "reconcile", options=PlanOptions(force=restore)
    )
    due = agent_work(
        drafted, found.owned, found.sightings.values(), restore=restore, hopeless=hopeless, told=told
    )  # fmt: skip
    owed = sum(action.owed for action in drafted.blocked)
    failed = {
        one.key: one.failure.message
        for one in drafted.blocked
        if one.failure and not one.failure.recoverable and not one.conflict  # another party may release the name
    }
    news = [_reported(one) for one in due.tell]
    if due.act:
        outcomes = await _carry_out(fleet, found, due.act, news, view, running, stopping)
        failed |= {one.action.key: one.failure.message for one in outcomes if _hopeless(one) and one.failure}
        stalled = frozenset(one.action.key for one in outcomes if _stalled(one))
        owed += sum(one.state is ActionState.SKIPPED for one in outcomes)
    elif news:
        await fleet.db(fleet.store.add_events, news)
    # After nearly every repair there is nothing to tidy up.
    untidy = await fleet.read(fleet.store.to_tidy)
    if record.ending or untidy:
        await tidy(fleet, stack)
    return Repaired(survey=found, outcomes=outcomes, reported=due.tell, owed=owed, failed=failed, stalled=stalled)


async def _carry_out(
    fleet: Fleet,
    found: Survey,
    actions: Sequence[Action],
    news: Sequence[Event],
    view: FleetView,
    running: set[str],
    stopping: Callable[[], bool],
) -> tuple[Outcome, ...]:
    """Begin a command, together with events that are due, and carry it out."""
    stack = found.declaration.stack
    command = new_command(stack, "restore", fleet.clock.now())
    running.add(command.id)
    try:
        await fleet.db(fleet.store.begin, command, action_records(command.id, actions), news)
        if any(action.drift for action in actions):
            await _report_drift(fleet)
        outcomes = await carry(
            fleet, found, command, actions, view, ExecuteOptions(stopping=stopping, tells_again=False)
        )
    finally:
        running.discard(command.id)
    if restored := [_restored(fleet, stack, command.id, one) for one in outcomes if _repaired_drift(one)]:
        await fleet.db(fleet.store.add_events, restored)
    return tuple(outcomes)


async def _report_drift(fleet: Fleet) -> None:
    """Publish what the store has recorded, so that a log shows the drift before the actions that it caused."""
    with contextlib.suppress(GarrisonError):  # it is published later
        await fleet.feed.pull()
        await fleet.events.settled()


def _of_the_declared_base(found: Survey, view: FleetView) -> Survey:
    """Return `found` without the sightings of targets that serve another base model than declared.

    Nothing is done on those, and no other target waits for them.
    """
    wrong = set()
    for model in found.declaration.models:
        try:
            check_models([model], found.sightings)
        except InvalidError as error:
            wrong.add(model.target)
            view.note(error.message)
    return replace(found, sightings={name: seen for name, seen in found.sightings.items() if name not in wrong})


def _repaired_drift(one: Outcome) -> bool:
    return one.state is ActionState.DONE and one.action.drift and one.action.acts


def _hopeless(one: Outcome) -> bool:
    """Return whether the action failed permanently. A name that another party holds may be released, so it is not."""
    if one.state is not ActionState.FAILED or one.failure is None or one.failure.recoverable:
        return False
    return one.failure.code not in (FailureCode.ALREADY_EXISTS, FailureCode.RESOURCE_CONFLICT)


def _stalled(one: Outcome) -> bool:
    """Return whether the action failed at a target that answers, for a reason that may pass."""
    if one.failure is None or one.failure.cause is not None or _hopeless(one):
        return False
    return one.state in (ActionState.FAILED, ActionState.STARTED)


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


def _reported(one: Drift) -> Event:
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
