"""Carries out the actions of a plan: targets in parallel, the actions of one target in order on one connection.

Actions on a target that cannot be reached are skipped and stay owed; a failure on one target stops no other. If a
target is lost after something was sent, the action stays `started`, and a later look at the target settles it.

The order of effects, per target: an action is recorded as started before its first request, and its end is recorded
before the next action sends anything. The end of one action and the start of the next share a transaction. So a process
that is killed leaves at most one action of a target `started`, carried out or not; the list of what the target serves
tells which, see `plan.interrupted`.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from garrison.base.errors import GarrisonError
from garrison.fleet.context import Fleet
from garrison.fleet.execute.action_log import ActionLog
from garrison.fleet.execute.commands import action_records
from garrison.fleet.execute.group_commit import GroupCommit
from garrison.fleet.execute.procedures import WAYS, Result, record
from garrison.fleet.execute.steps import ExecuteOptions, StepError, Steps, Visit
from garrison.fleet.values import events
from garrison.fleet.values.causes import ASKED_AGAIN
from garrison.fleet.values.failure import Failure, FailureCode, same_failure
from garrison.fleet.values.observation import Served, Sighting
from garrison.fleet.values.plan import Action, ActionKind, Way, still_served
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.view import FleetView, Outcome
from garrison.fleet.vllm.answers import transport_failure
from garrison.fleet.vllm.api import VllmApi
from garrison.net.transport import TransportError
from garrison.store.records import ActionResult, ActionState, Operation, Resource

__all__ = ["ExecuteOptions", "execute"]


async def execute(
    fleet: Fleet,
    actions: Sequence[Action],
    *,
    command: str,
    stack: str,
    targets: Mapping[str, TargetSpec],
    sightings: Mapping[str, Sighting],
    view: FleetView,
    options: ExecuteOptions | None = None,
) -> list[Outcome]:
    """Carry out `actions`; return one outcome per action in their order, and none for kept ones.

    Args:
        actions: the same sequence whose `commands.action_records` were stored with the command.
        targets: every target that is acted on.
        sightings: the observations on which the actions are based.

    Raises:
        GarrisonError: the store failed. Nothing more was begun then; what was in progress is recorded as started.
    """
    commits = GroupCommit(fleet)
    run = _Run(fleet, commits, targets, sightings, view, options or ExecuteOptions(), asyncio.Event())
    outcomes: dict[int, Outcome] = {}
    groups: dict[str, list[_Item]] = {}
    for action, planned in zip(actions, action_records(command, actions), strict=True):
        if action.kind is not ActionKind.KEEP:
            item = _Item(action, planned.seq, ActionLog(commits, fleet.clock, stack, action, planned))
            groups.setdefault(action.target, []).append(item)
    places = asyncio.Semaphore(run.options.parallel)

    async def one(target: str, items: list[_Item]) -> None:
        async with places:
            try:
                outcomes.update(await run.target(target, items))
            except BaseException:
                run.broken.set()
                raise

    # An action between an unload and a load is not cancelled because the record of another target cannot be written.
    ends = await asyncio.gather(*(one(target, items) for target, items in groups.items()), return_exceptions=True)
    for error in ends:
        if error is not None:
            raise error
    return [outcomes[seq] for seq in sorted(outcomes)]


_NOT_OURS = (FailureCode.ALREADY_EXISTS, FailureCode.RESOURCE_CONFLICT)
"""Failures that say that somebody else has changed what is served."""


@dataclass(frozen=True, slots=True)
class _Item:
    action: Action
    seq: int
    log: ActionLog


_Sent = tuple[_Item, Way]
"""An action that sends requests, and the procedure for it."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One run. `broken` is set after a failure that is no target's, such as the store's; nothing more is begun then."""

    fleet: Fleet
    commits: GroupCommit
    targets: Mapping[str, TargetSpec]
    sightings: Mapping[str, Sighting]
    view: FleetView
    options: ExecuteOptions
    broken: asyncio.Event

    async def target(self, name: str, items: Sequence[_Item]) -> dict[int, Outcome]:
        """Return the outcomes of one target's actions, by `seq`."""
        blocked = [item for item in items if _way(item.action) is None]
        recorded = [item for item in items if _way(item.action) is Way.RECORD]
        sent = [(item, way) for item in items if (way := _way(item.action)) is not None and way is not Way.RECORD]
        ended = await self._blocked(blocked) | await self._record(recorded)
        return ended | await self._visit(name, sent) if sent else ended

    async def _visit(self, name: str, work: Sequence[_Sent]) -> dict[int, Outcome]:
        if self.options.stopping():
            return await self._skip([item for item, _ in work], None)
        ended: dict[int, Outcome] = {}
        target = self.targets[name]
        try:
            async with self.fleet.dialer.open(target) as connection:
                api = VllmApi(connection, target, self.fleet.clock)
                visit = Visit(target=target, api=api, base=_base(target, self.sightings.get(name)))
                away = await self._act_in_order(work, visit, ended)
        except TransportError as error:  # on entering: a secret or a certificate cannot be read
            away = transport_failure(error)
        if self.broken.is_set():
            return ended
        return ended | await self._skip([item for item, _ in work if item.seq not in ended], away)

    async def _act_in_order(self, work: Sequence[_Sent], visit: Visit, ended: dict[int, Outcome]) -> Failure | None:
        """Carry out actions, adding to `ended`, until one loses the target, a stop is requested, or the run is broken.

        Returns the failure that lost the target.
        """
        await self.commits.save(work[0][0].log.intention())
        for at, (item, way) in enumerate(work, 1):
            # Asked again, because writing the intention took time. If nothing is sent, it is taken back: here, or for a
            # stop by the caller, which skips the action.
            if self.broken.is_set():
                with contextlib.suppress(GarrisonError):  # else the next look at the target settles it
                    await self.commits.save(item.log.withdrawn())
                return None
            if self.options.stopping():
                return None
            async with contextlib.AsyncExitStack() as held:  # until it is on record: requests go by that
                outcome, result = await self._act(item, way, visit, held)
                away = outcome.failure if outcome.failure and outcome.failure.cause is not None else None
                more = at < len(work) and away is None and not (self.broken.is_set() or self.options.stopping())
                await self.commits.save(result, *([work[at][0].log.intention()] if more else []))
            self.options.checkpoint("recorded")
            self.view.ended(outcome)
            ended[item.seq] = outcome
            if not more:
                return away
        return None

    async def _act(
        self, item: _Item, way: Way, visit: Visit, held: contextlib.AsyncExitStack
    ) -> tuple[Outcome, ActionResult]:
        started = self.fleet.clock.monotonic()
        self.view.started(item.action)
        item.log.begin()
        self.options.checkpoint("intended")
        steps = Steps(self.fleet, visit, item.action, item.log, self.view, self.options, held)
        failure: Failure | None = None
        result = Result()
        state = ActionState.DONE
        try:
            result = await WAYS[way](steps)
        except StepError as error:
            state = _state(steps, error.failure)
            failure = error.failure
            if state is ActionState.FAILED and not _changed(error, steps):
                failure = still_served(item.action, failure)
            result = Result(resources=_left_behind(item, error))
        outcome = Outcome(
            action=item.action,
            state=state,
            failure=failure,
            seconds=self.fleet.clock.monotonic() - started,
            gap_ms=result.gap_ms,
            notes=tuple(steps.notes),
        )
        told = failure is not None and await self._was_told(item, failure)
        return outcome, item.log.ended(
            state, step=steps.name, resources=result.resources, failure=failure, gap_ms=result.gap_ms, told=told
        )

    async def _was_told(self, item: _Item, failure: Failure) -> bool:
        """Return whether the last event of the adapter is this failure, and the caller wants it only once.

        An event from before the last apply does not count, nor one from before the adapter's current version: status
        would not show it.
        """
        if self.options.tells_again or failure.cause is not None:
            return False
        key, stack = item.action.key, item.log.stack
        kinds = (events.ACTION_DONE, events.ACTION_FAILED)
        found = await self.fleet.read(
            self.fleet.store.events, stack=stack, target=key.target, name=key.name, kinds=kinds, limit=1
        )
        record = await self.fleet.read(self.fleet.store.stack, stack, at=())
        if not found or record is None or found[0].at < record.at:
            return False
        recorded = item.action.recorded
        return (recorded is None or found[0].at >= recorded.at) and same_failure(found[0].after or {}, failure)

    async def _record(self, items: Sequence[_Item]) -> dict[int, Outcome]:
        """Carry out actions that change only the record."""
        for item in items:
            self.view.started(item.action)
        results = [item.log.ended(ActionState.DONE, resources=record(item.action, item.log)) for item in items]
        return await self._end_at_once(items, results, None)

    async def _blocked(self, items: Sequence[_Item]) -> dict[int, Outcome]:
        """Skip what waits for a target that was not seen; fail what nothing can bring about."""
        ended: dict[int, Outcome] = {}
        for item in items:
            failure = item.action.failure
            if failure is not None and failure.recoverable:
                ended |= await self._skip([item], failure)
            else:
                failure = still_served(item.action, failure) if failure is not None else None
                ended |= await self._end_at_once([item], [item.log.ended(ActionState.FAILED, failure=failure)], failure)
        return ended

    async def _skip(self, items: Sequence[_Item], failure: Failure | None) -> dict[int, Outcome]:
        results = [item.log.ended(ActionState.SKIPPED, failure=failure, resources=_asked_again(item)) for item in items]
        return await self._end_at_once(items, results, failure)

    async def _end_at_once(
        self, items: Sequence[_Item], results: Sequence[ActionResult], failure: Failure | None
    ) -> dict[int, Outcome]:
        """Store the ends of actions for which nothing was sent, in one transaction, and report them."""
        if not items:
            return {}
        await self.commits.save(*results)
        ended = {}
        for item, result in zip(items, results, strict=True):
            if result.action.state is ActionState.DONE:
                self.options.checkpoint("recorded")
            ended[item.seq] = Outcome(action=item.action, state=result.action.state, failure=failure)
            self.view.ended(ended[item.seq])
        return ended


def _way(action: Action) -> Way | None:
    """Return how to carry out the action; None if it is blocked."""
    return None if action.kind is ActionKind.BLOCKED else action.way


def _state(steps: Steps, failure: Failure) -> ActionState:
    away = failure.cause is not None
    if steps.uncertain or (steps.touched and away):
        return ActionState.STARTED
    return ActionState.SKIPPED if away else ActionState.FAILED


def _changed(error: StepError, steps: Steps) -> bool:
    """Return whether another adapter than before the failed action is served, or none, or a new one beside it."""
    return error.lost or error.elsewhere or steps.ours or error.left is not None or error.failure.code in _NOT_OURS


def _asked_again(item: _Item) -> tuple[Resource, ...]:
    """Mark a tombstone that was to be loaded again as owed, whatever its cause was before."""
    lost = item.action.recorded
    if lost is None or lost.operation is not Operation.LOST or item.action.desired is None:
        return ()
    return (item.log.gone(lost, Operation.LOST, ASKED_AGAIN),) if lost.cause != ASKED_AGAIN else ()


def _left_behind(item: _Item, error: StepError) -> tuple[Resource, ...]:
    """Return the versions for what a failed action changed nevertheless.

    An adapter that it loaded is recorded as owned even if it is wrong; otherwise nothing would ever unload it.
    """
    recorded, left = item.action.recorded, error.left
    if left is not None and left.root is not None:
        cause = f"a failed {item.action.kind}, not unloaded again"
        return (item.log.version(Operation.CREATED, served_path=left.root, parent=left.parent, cause=cause),)
    if not error.lost or recorded is None or not recorded.operation.serves:
        return ()
    return (item.log.gone(recorded, Operation.LOST, f"a failed {item.action.kind}"),)


def _base(target: TargetSpec, seen: Sighting | None) -> Served | None:
    """Return the base model that a list must contain to be believed: the one last seen, else the declared one."""
    if seen is not None and seen.base is not None:
        return seen.served.get(seen.base)
    return Served(target.base_model, None) if target.base_model else None
