"""Carrying out the actions of a plan: targets in parallel, the actions of one target in order on one connection.

What cannot be reached is skipped and stays owed; what failed on one target stops no other. Where the target was lost
after something had been sent, the action stays `started`, and a later look at the target tells what became of it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from garrison.fleet.context import Fleet
from garrison.fleet.execute.action_log import ActionLog
from garrison.fleet.execute.commands import action_records
from garrison.fleet.execute.group_commit import GroupCommit
from garrison.fleet.execute.procedures import WAYS, Result, record
from garrison.fleet.execute.steps import ExecuteOptions, StepError, Steps, Visit
from garrison.fleet.values.causes import ASKED_AGAIN
from garrison.fleet.values.failure import Failure
from garrison.fleet.values.observation import Served, Sighting
from garrison.fleet.values.plan import Action, ActionKind, Way
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.view import FleetView, Outcome
from garrison.fleet.vllm.answers import transport_failure
from garrison.fleet.vllm.api import VllmApi
from garrison.net.transport import TransportError
from garrison.store.records import ActionState, Operation, Resource

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
    """One outcome an action, in their order; none for what is only kept.

    Args:
        actions: the very sequence whose `commands.action_records` the command was stored with.
        targets: how to reach every target that is acted on.
        sightings: the looks that the actions were decided from.

    Raises:
        GarrisonError: the store failed. Nothing more was begun then; what had been is on record as such.
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

    # An action between an unload and a load is not cut short because another target's record could not be written.
    ends = await asyncio.gather(*(one(target, items) for target, items in groups.items()), return_exceptions=True)
    for error in ends:
        if error is not None:
            raise error
    return [outcomes[seq] for seq in sorted(outcomes)]


@dataclass(frozen=True, slots=True)
class _Item:
    action: Action
    seq: int
    log: ActionLog


@dataclass(frozen=True, slots=True)
class _Run:
    """One run. `broken`: something failed that is not a target's fault; no further action is begun."""

    fleet: Fleet
    commits: GroupCommit
    targets: Mapping[str, TargetSpec]
    sightings: Mapping[str, Sighting]
    view: FleetView
    options: ExecuteOptions
    broken: asyncio.Event

    async def target(self, name: str, items: Sequence[_Item]) -> dict[int, Outcome]:
        """The outcomes of one target's actions, by `seq`."""
        ended: dict[int, Outcome] = {}
        ways = [(item, way) for item in items if (way := _way(item.action)) is not None]
        for item in items:
            if _way(item.action) is None:
                ended[item.seq] = await self._blocked(item)
        for item in (item for item, way in ways if way is Way.RECORD):
            ended[item.seq] = await self._record(item)
        if sent := [(item, way) for item, way in ways if way is not Way.RECORD]:
            ended |= await self._visit(name, sent)
        return ended

    async def _visit(self, name: str, work: Sequence[tuple[_Item, Way]]) -> dict[int, Outcome]:
        ended: dict[int, Outcome] = {}
        if self.options.stopping():
            return await self._skip([item for item, _ in work], None)
        target = self.targets[name]
        try:
            async with self.fleet.dialer.open(target) as connection:
                api = VllmApi(connection, target, self.fleet.clock)
                visit = Visit(target=target, api=api, base=_base(target, self.sightings.get(name)))
                for at, (item, way) in enumerate(work, 1):
                    if self.broken.is_set():
                        break
                    outcome = ended[item.seq] = await self._act(item, way, visit)
                    away = outcome.failure if outcome.failure and outcome.failure.cause is not None else None
                    if away is not None or self.options.stopping():
                        return ended | await self._skip([item for item, _ in work[at:]], away)
        except TransportError as error:  # on entering: a secret or a certificate that cannot be read
            failure = transport_failure(error)
            ended |= await self._skip([item for item, _ in work if item.seq not in ended], failure)
        return ended

    async def _act(self, item: _Item, way: Way, visit: Visit) -> Outcome:
        started = self.fleet.clock.monotonic()
        self.view.started(item.action)
        steps = Steps(self.fleet, visit, item.action, item.log, self.view, self.options)
        await item.log.begin()
        self.options.checkpoint("intended")
        failure: Failure | None = None
        result = Result()
        state = ActionState.DONE
        try:
            result = await WAYS[way](steps)
        except StepError as error:
            failure = error.failure
            state = _state(steps, failure)
            result = Result(resources=_left_behind(item, error))
        await item.log.end(state, step=steps.name, resources=result.resources, failure=failure, gap_ms=result.gap_ms)
        self.options.checkpoint("recorded")
        return self._ended(
            Outcome(
                action=item.action,
                state=state,
                failure=failure,
                seconds=self.fleet.clock.monotonic() - started,
                gap_ms=result.gap_ms,
                notes=tuple(steps.notes),
            )
        )

    async def _record(self, item: _Item) -> Outcome:
        self.view.started(item.action)
        await item.log.end(ActionState.DONE, resources=record(item.action, item.log))
        self.options.checkpoint("recorded")
        return self._ended(Outcome(action=item.action, state=ActionState.DONE))

    async def _blocked(self, item: _Item) -> Outcome:
        """What is owed by a target that was not seen is skipped; what nothing can bring about has failed."""
        failure = item.action.failure
        if failure is not None and failure.recoverable:
            return (await self._skip([item], failure))[item.seq]
        await item.log.end(ActionState.FAILED, failure=failure)
        return self._ended(Outcome(action=item.action, state=ActionState.FAILED, failure=failure))

    async def _skip(self, items: Sequence[_Item], failure: Failure | None) -> dict[int, Outcome]:
        """All of them at once: a run that is stopped has many."""
        if not items:
            return {}
        skipped = ActionState.SKIPPED
        await self.commits.save(
            *(item.log.ended(skipped, failure=failure, resources=_asked_again(item)) for item in items)
        )
        return {item.seq: self._ended(Outcome(action=item.action, state=skipped, failure=failure)) for item in items}

    def _ended(self, outcome: Outcome) -> Outcome:
        self.view.ended(outcome)
        return outcome


def _way(action: Action) -> Way | None:
    """None for what is blocked."""
    return None if action.kind is ActionKind.BLOCKED else action.way


def _state(steps: Steps, failure: Failure) -> ActionState:
    away = failure.cause is not None
    if steps.uncertain or (steps.touched and away):
        return ActionState.STARTED
    return ActionState.SKIPPED if away else ActionState.FAILED


def _asked_again(item: _Item) -> tuple[Resource, ...]:
    """A tombstone that was to be loaded again stays owed, whoever had undone it before."""
    lost = item.action.recorded
    if lost is None or lost.operation is not Operation.LOST or item.action.desired is None:
        return ()
    return (item.log.gone(lost, Operation.LOST, ASKED_AGAIN),) if lost.cause != ASKED_AGAIN else ()


def _left_behind(item: _Item, error: StepError) -> tuple[Resource, ...]:
    """What a failed action changed all the same. Ours is ours, even where it is not right: so it is not orphaned."""
    recorded, left = item.action.recorded, error.left
    if left is not None and left.root is not None:
        cause = f"a failed {item.action.kind}, not unloaded again"
        return (item.log.version(Operation.CREATED, served_path=left.root, parent=left.parent, cause=cause),)
    if not error.lost or recorded is None or not recorded.operation.serves:
        return ()
    return (item.log.gone(recorded, Operation.LOST, f"a failed {item.action.kind}"),)


def _base(target: TargetSpec, seen: Sighting | None) -> Served | None:
    """The base model by which lists are believed: the one last seen, else the declared one."""
    if seen is not None and seen.base is not None:
        return seen.served.get(seen.base)
    return Served(target.base_model, None) if target.base_model else None
