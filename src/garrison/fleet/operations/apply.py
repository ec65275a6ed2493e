"""Makes targets serve what a manifest declares: settle, observe, plan, record the intention, act, record the result.

Nobody is asked in here, since nothing may be held while a person thinks: `propose` makes the plan to show, and `apply`
is given the fingerprint of the plan that was confirmed. It observes and plans again, and rejects any other plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from garrison.base.errors import ConflictError
from garrison.base.exit_codes import ExitCode
from garrison.fleet.context import Fleet
from garrison.fleet.execute.commands import action_records, new_command
from garrison.fleet.execute.executor import ExecuteOptions, execute
from garrison.fleet.execute.lease import hold
from garrison.fleet.operations.fingerprint import fingerprint_of, reject_changed
from garrison.fleet.operations.instances import change_instances, plan_instances, require_server
from garrison.fleet.operations.reconcile import survey_and_settle
from garrison.fleet.operations.survey import Survey, decide, look, managed_names, survey
from garrison.fleet.plan.addresses import check_addresses, spellings
from garrison.fleet.plan.context import Mode, PlanOptions
from garrison.fleet.plan.shared_targets import check_shared, orphaned_settings
from garrison.fleet.values import events
from garrison.fleet.values.causes import MOVED
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.instance_change import InstanceKind, InstanceOutcome
from garrison.fleet.values.plan import Action, ActionKind, Plan
from garrison.fleet.values.view import FleetView, Outcome, SilentView
from garrison.store.records import ActionState, CommandRecord, CommandState, Event, StackRecord

__all__ = ["Applied", "apply", "carry", "destroy", "patched", "preview", "propose", "tidy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The result of an apply. `command` is None if there was nothing to do, not even on record."""

    plan: Plan
    outcomes: tuple[Outcome, ...] = ()
    instances: tuple[InstanceOutcome, ...] = ()
    command: str | None = None

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(one for one in self.outcomes if one.state is ActionState.FAILED)

    @property
    def owed(self) -> tuple[Outcome, ...]:
        return tuple(one for one in self.outcomes if one.state in (ActionState.SKIPPED, ActionState.STARTED))

    @property
    def exit_code(self) -> ExitCode:
        """0; 30 if an action failed; 31 if nothing failed and a target could not be observed.

        A load that its target did not answer in time counts as failed: the target is not out of reach.
        """
        if self.failed or any(one.unanswered for one in self.outcomes):
            return ExitCode.APPLY_FAILED
        if any(one.error is not None for one in self.instances):
            return ExitCode.APPLY_FAILED
        if any(action.failure and not action.failure.recoverable for action in self.plan.blocked):
            return ExitCode.APPLY_FAILED
        return ExitCode.UNREACHABLE if self.owed or self.plan.unknown else ExitCode.OK

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`."""
        return {
            "ok": self.exit_code is ExitCode.OK,
            "exit_code": int(self.exit_code),
            "command": self.command,
            "plan": self.plan.to_json(),
            "instances": [one.to_json() for one in self.instances],
            "outcomes": [one.to_json() for one in self.outcomes],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Applied":
        """Read what `to_json` returned; see `Plan.to_json` for what its plan lacks."""
        plan = Plan.from_json(body["plan"])
        actions = {one.key: one for one in plan.actions}
        return cls(
            plan=plan,
            outcomes=tuple(Outcome.from_json(one, actions) for one in body["outcomes"]),
            instances=tuple(InstanceOutcome.from_json(one, plan.instances) for one in body["instances"]),
            command=body["command"],
        )


async def preview(
    fleet: Fleet, declaration: Declaration, view: FleetView, *, mode: Mode = "reconcile", options: PlanOptions
) -> Plan:
    """Return the plan of an apply, without a lease and without an effect. Conflicts of adapters are in it, not raised.

    After a killed command it may differ from the plan of `propose`, which settles that command first.

    Raises:
        ConflictError: one server is declared under two names, or another stack's target would be moved or changed: then
            there is no plan.
        InvalidError: a declared base model is not the one that is served.
    """
    found = await survey(fleet, declaration, view)
    return await _draft(fleet, found, view, mode, options)


async def propose(
    fleet: Fleet, declaration: Declaration, view: FleetView, *, mode: Mode = "reconcile", options: PlanOptions
) -> Plan:
    """Return the plan that an apply would carry out now, for somebody to confirm. Conflicts are in it, not raised.

    Killed commands are settled and observations are stored, as an apply does before it plans. The stack is held for
    that long, and is free again when this returns.

    Raises:
        ConflictError, InvalidError: as for `apply`, except for conflicts of adapters.
    """
    async with hold(fleet, declaration.stack, _purpose(mode)):
        found = await survey_and_settle(fleet, declaration, view)
        drafted = await _draft(fleet, found, view, mode, options)
        require_server(fleet, drafted)  # nobody is asked to confirm what cannot be done
        return drafted


async def apply(
    fleet: Fleet,
    declaration: Declaration,
    view: FleetView,
    *,
    mode: Mode = "reconcile",
    options: PlanOptions,
    fingerprint: str | None = None,
    execution: ExecuteOptions | None = None,
) -> Applied:
    """Make the targets serve what `declaration` says. Actions on targets out of reach stay owed.

    Args:
        fingerprint: of the plan that was confirmed; None carries out whatever the plan is now.

    Raises:
        ConflictError: another command holds the stack, the plan is not the one that was confirmed, applying would
            overwrite an outside change, one server is declared under two names, or another stack's target would be
            moved or changed.
        InvalidError: a declared base model is not the one that is served.
        UnreachableError: instances are declared or would be deleted, and no server runs here.
    """
    async with hold(fleet, declaration.stack, _purpose(mode)):
        found = await survey_and_settle(fleet, declaration, view)
        drafted = await _draft(fleet, found, view, mode, options)
        _reject_conflicts(drafted)
        reject_changed(drafted, fingerprint)
        require_server(fleet, drafted)
        if drafted.empty and _declared_already(found, mode):
            await tidy(fleet, declaration.stack)  # a destroy may have been killed right before this
            return Applied(plan=drafted)
        return await _carry_out(fleet, found, drafted, view, execution)


async def destroy(
    fleet: Fleet,
    stack: str,
    view: FleetView,
    *,
    options: PlanOptions,
    fingerprint: str | None = None,
    execution: ExecuteOptions | None = None,
) -> Applied:
    """Unload everything the stack owns. The stack is dropped once nothing is owed any more.

    Raises:
        ConflictError: another command holds the stack, or the plan is not the one that was confirmed.
    """
    empty = Declaration(stack=stack)
    return await apply(
        fleet, empty, view, mode="destroy", options=options, fingerprint=fingerprint, execution=execution
    )


def _purpose(mode: Mode) -> str:
    return "destroy" if mode == "destroy" else "apply"


async def _draft(fleet: Fleet, found: Survey, view: FleetView, mode: Mode, options: PlanOptions) -> Plan:
    await _check_targets(fleet, found, options)
    instances = await plan_instances(fleet, found, mode=mode, adopt=options.adopt)
    ending = frozenset(one.name for one in instances if one.kind is InstanceKind.DELETE)
    drafted = replace(await decide(fleet, found, mode=mode, options=options, ending=ending), instances=instances)
    drafted = replace(drafted, fingerprint=fingerprint_of(drafted, found.declaration, found.stack))
    view.planned(drafted)
    return drafted


async def _check_targets(fleet: Fleet, found: Survey, options: PlanOptions) -> None:
    targets = found.declaration.targets
    spelled = {text for spec in targets.values() for text in spellings(spec.base_url)}
    elsewhere = [one for one in await fleet.read(fleet.store.targets_at, spelled) if one.name not in targets]
    names = {one.name for one in elsewhere}
    declared = await fleet.read(fleet.store.declared, {*targets, *names})
    recorded = [*found.recorded, *(await fleet.read(fleet.store.resources, targets=names))]
    check_addresses(found.declaration, found.moved, elsewhere, declared, recorded, force=options.force)
    check_shared(found.declaration, found.known, declared, force=options.force)


def _reject_conflicts(drafted: Plan) -> None:
    if drafted.instance_conflicts:
        one = drafted.instance_conflicts[0]
        assert one.failure is not None
        conflicts = {"conflicts": [other.to_json() for other in drafted.instance_conflicts]}
        raise ConflictError(f"rejected: {one.failure.message}", hint=one.failure.hint, details=conflicts)
    if not drafted.conflicts:
        return
    first = drafted.conflicts[0]
    assert first.failure is not None
    more = f", and {len(drafted.conflicts) - 1} more" if len(drafted.conflicts) > 1 else ""
    raise ConflictError(
        f"rejected: {first.failure.message}{more}",
        hint=first.failure.hint,
        details={"conflicts": [action.to_json() for action in drafted.conflicts]},
    )


def _declared_already(found: Survey, mode: str) -> bool:
    """Return whether the declaration on record is exactly this one. Then an apply leaves no trace."""
    if found.stack is None or found.stack.ending != (mode == "destroy"):
        return False
    return found.stack.declaration == _afterwards(found, mode).to_json()


def _afterwards(found: Survey, mode: str) -> Declaration:
    """Return the declaration to record. A patch adds to what was applied before; other modes replace it."""
    if mode != "patch" or found.stack is None:
        return found.declaration
    return patched(Declaration.from_json(found.stack.declaration), found.declaration)


def patched(before: Declaration, patch: Declaration) -> Declaration:
    """Return `before` with everything that the patch declares added or changed. Policy and hooks stay as they were."""
    named = {(one.target, one.lora_name): one for one in before.adapters}
    named |= {(one.target, one.lora_name): one for one in patch.adapters}
    models = {(one.target, one.label): one for one in (*before.models, *patch.models)}
    return replace(
        before,
        targets=dict(before.targets) | dict(patch.targets),
        adapters=tuple(named.values()),
        models=tuple(models.values()),
        instances=dict(before.instances) | dict(patch.instances),
        routes=dict(before.routes) | dict(patch.routes),
        profiles=dict(before.profiles) | dict(patch.profiles),
    )


async def _carry_out(
    fleet: Fleet, found: Survey, drafted: Plan, view: FleetView, execution: ExecuteOptions | None
) -> Applied:
    now = fleet.clock.now()
    command = new_command(drafted.stack, "destroy" if drafted.mode == "destroy" else "apply", now, mode=drafted.mode)
    work = [action for action in drafted.actions if action.kind is not ActionKind.KEEP]
    records = action_records(command.id, work)
    stack = StackRecord(
        name=drafted.stack,
        declaration=_afterwards(found, drafted.mode).to_json(),
        at=now,
        command=command.id,
        ending=drafted.mode == "destroy",
    )
    declared = [
        replace(found.records[name], spec=spec.to_json(), declared_at=now)
        for name, spec in found.declaration.targets.items()
    ]
    told = Event(at=now, kind=events.APPLIED, stack=stack.name, command=command.id, cause=drafted.mode)
    seen = {name: record.spec for name, record in found.known.items()}
    await fleet.db(fleet.store.declare, stack, declared, command, records, [told], seen=seen)
    fresh = [one for one in declared if one.name in found.pending or one.name in found.moved]
    news = [event for one in fresh if one.name in found.pending for event in found.pending[one.name].events]
    await fleet.db(fleet.store.sight, fresh, [*_moved_events(found, now), *news])
    if left := [one for one in found.recorded if one.cause == MOVED and one.command is None]:
        await fleet.db(fleet.store.put, [replace(one, at=now, command=command.id) for one in left])
    # Instances first: adapters are loaded into them, and what is deleted makes room for what is created.
    changed = await change_instances(fleet, drafted.instance_work, execution)
    outcomes = await carry(fleet, found, command, work, view, execution)
    if drafted.mode != "destroy" or all(one.error is None for one in changed):  # else another destroy continues
        await tidy(fleet, drafted.stack)
    return Applied(plan=drafted, outcomes=tuple(outcomes), instances=changed, command=command.id)


def _moved_events(found: Survey, now: datetime) -> list[Event]:
    return [
        Event(
            at=now,
            kind=events.CHANGED,
            target=name,
            cause="address",
            before={"base_url": address},
            after={"base_url": found.targets[name].base_url},
        )
        for name, address in found.moved.items()
    ]


async def carry(
    fleet: Fleet,
    found: Survey,
    command: CommandRecord,
    work: Sequence[Action],
    view: FleetView,
    options: ExecuteOptions | None = None,
) -> list[Outcome]:
    """Execute the actions of a command that is on record, and end it.

    A command that lost its target in the middle of an action is left open; the next observation of that target settles
    it.
    """
    outcomes = await execute(
        fleet,
        work,
        command=command.id,
        stack=command.stack,
        targets=found.targets,
        sightings=found.sightings,
        view=view,
        options=options,
    )
    await _look_again(fleet, found, outcomes)
    if any(one.state is ActionState.STARTED for one in outcomes):
        return outcomes
    failed = sum(one.state is ActionState.FAILED for one in outcomes)
    owed = sum(one.state is ActionState.SKIPPED for one in outcomes)
    state = CommandState.FAILED if failed else CommandState.OWED if owed else CommandState.SUCCEEDED
    summary = {"done": len(outcomes) - failed - owed, "failed": failed, "owed": owed}
    ended = replace(command, state=state, ended_at=fleet.clock.now(), summary=summary)
    await fleet.db(fleet.store.finish, ended)
    return outcomes


async def _look_again(fleet: Fleet, found: Survey, outcomes: Sequence[Outcome]) -> None:
    """Observe the targets that were changed, so that the record shows what they serve now.

    The command's own changes must not become events: nobody else made them.
    """
    acted = {one.action.target for one in outcomes if one.action.acts and one.state is not ActionState.SKIPPED}
    ours = managed_names(await fleet.read(fleet.store.resources, targets=acted))
    for one in outcomes:
        ours.setdefault(one.action.target, set()).add(one.action.name)
        if one.action.replaced is not None:
            ours[one.action.target].add(one.action.replaced.key.name)
    records = {one.name: one for one in await fleet.read(fleet.store.targets, acted)}
    targets = {name: found.targets[name] for name in records}
    await look(fleet, targets, records, ours, SilentView(), record=targets)


async def tidy(fleet: Fleet, name: str) -> None:
    """Drop a destroyed stack on which nothing is owed, and targets that nothing refers to any more.

    Of the targets that a stack stopped declaring, those that no stack declares and at which nothing is owned are
    dropped. The others get the settings that are still declared. A target where a killed command was in the middle of
    an action stays until that command is settled.
    """
    stack = await fleet.read(fleet.store.stack, name, at=())
    if stack is None:
        return
    if stack.ending and name not in await fleet.read(fleet.store.begun):
        await _drop_if_done(fleet, stack)
    names = await fleet.read(fleet.store.to_tidy)
    if not names:
        return
    declared = await fleet.read(fleet.store.declared, names)
    known = await fleet.read(fleet.store.targets, names)
    applied = {one.name: one.at for one in await fleet.read(fleet.store.stacks, at=())}
    declared = [part for part in declared if part.stack in applied]
    if orphaned := orphaned_settings(declared, applied, known, fleet.clock.now()):
        await fleet.db(fleet.store.respecify, [one for one, _ in orphaned], [told for _, told in orphaned])
    still = {part.target for part in declared}
    owned = {one.key.target for one in await fleet.read(fleet.store.resources, targets=names)}
    begun = set[str]().union(*(await fleet.read(fleet.store.begun)).values())
    if spare := set(names) - still - owned - begun:
        await fleet.db(fleet.store.drop_targets, sorted(spare))
    if still:
        await fleet.db(fleet.store.tidied, sorted(still))


async def _drop_if_done(fleet: Fleet, stack: StackRecord) -> None:
    if await fleet.read(fleet.store.resources, stack=stack.name):
        return
    told = Event(at=fleet.clock.now(), kind=events.DESTROYED, stack=stack.name, command=stack.command)
    await fleet.db(fleet.store.drop_stack, stack.name)
    await fleet.db(fleet.store.add_events, [told])
