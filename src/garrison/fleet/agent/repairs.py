"""Decides which targets need a repair, has them repaired, and learns from how that ended.

Every repair starts from the store and a look of its own, under the stack's lease. So a judgement here need not be
exact: it only has to name each target that may have something to do.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from garrison.base.errors import ConflictError, GarrisonError
from garrison.fleet.agent.backoff import Backoff, undone_by_somebody
from garrison.fleet.agent.repair_queue import RepairQueue
from garrison.fleet.agent.schedule import Schedule
from garrison.fleet.agent.state import AgentState
from garrison.fleet.agent.watched import Watched, WatchList
from garrison.fleet.context import Fleet
from garrison.fleet.observe.drift import find_drift
from garrison.fleet.observe.entry_faults import Faults
from garrison.fleet.operations.repair import Repaired
from garrison.fleet.plan.agent_policy import AgentWork, agent_work
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.plan.planner import plan
from garrison.fleet.values import events
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.view import FleetView, Outcome
from garrison.store.records import ActionState, Event, Key

__all__ = ["Repairs"]

_SETTLE_SECONDS = 5.0
"""Between two checks for commands that were killed; the store does not signal when that happens."""


class Repairs:
    """The agent's repairs. It is the `Judge` of the looks.

    Args:
        watch_list: the targets.
        schedule: when they are looked at; a repaired target is looked at again at once.
        record: adds events to the history.
        faults: returns the faults of entries in adapter stores, as last read.
        changed: called when a repair ended.
        bug: called with an unexpected error.
        repaired: called with the result of each repair.
    """

    def __init__(
        self,
        fleet: Fleet,
        view: FleetView,
        state: AgentState,
        watch_list: WatchList,
        schedule: Schedule,
        *,
        record: Callable[[Iterable[Event]], None],
        faults: Callable[[], Faults],
        changed: Callable[[], None],
        bug: Callable[[str, BaseException], None],
        repaired: Callable[[Repaired], None] = lambda _result: None,
    ) -> None:
        self._fleet = fleet
        self._repaired = repaired
        self._view = view
        self._state = state
        self._list = watch_list
        self._schedule = schedule
        self._record = record
        self._faults = faults
        self._changed = changed
        self._bug = bug
        self._reported: dict[Key, str | None] = {}
        """Drift that was reported: the served path, by adapter."""
        self._backoff = Backoff()
        self._due: set[tuple[str, str]] = set()
        """(stack, target) to hand over once the sighting is written, since a repair starts from the store."""
        self._queue = RepairQueue(fleet, view, self._reported, self._ended, self._failed)
        self._settle_due = 0.0

    @property
    def waiting(self) -> bool:
        """Whether any target waits to be handed over."""
        return bool(self._due)

    @property
    def busy(self) -> bool:
        """Whether any target is being repaired, or waits for it."""
        return bool(self._due) or self._queue.busy

    def stop(self) -> None:
        """Begin no further action."""
        self._queue.stop()

    async def close(self, seconds: float) -> None:
        """Allow `seconds` for actions in progress, then cancel them."""
        await self._queue.close(seconds)

    def follow(self, targets: Iterable[str]) -> None:
        """Forget what is outdated after a change of the records of `targets`."""
        self._backoff.keep(self._list.targets)
        changed = frozenset(targets)
        for key in [key for key in self._reported if key.target in changed and not self._list.owns(key)]:
            del self._reported[key]

    def judge(self, one: Watched, seen: Sighting) -> None:
        """Note each stack that has something to do or to report on the target."""
        drifted = {drift.resource.key for drift in find_drift(one.resources, seen)}
        for resource in one.resources:
            if resource.key not in drifted:
                self._reported.pop(resource.key, None)
        work = {stack: self._work(stack, one, seen) for stack in one.stacks}
        busy = [stack for stack, found in work.items() if found or self._began(stack, seen.target)]
        # An adapter that is unloaded after its last request is looked at again, although its target stays as it is.
        one.calm = None if busy or any(found.waits for found in work.values()) else seen.served
        one.calm_until = self._backoff.until(seen.target, now=self._fleet.clock.monotonic())
        self._due |= {(stack, seen.target) for stack in busy}

    def went_away(self, target: str) -> None:
        """Forget permanent failures on a target that is out of reach."""
        self._backoff.went_away(target)

    def hand_over(self) -> None:
        """Queue the repairs that the sightings written so far call for."""
        due, self._due = self._due, set()
        for stack, target in due:
            if (one := self._list.targets.get(target)) is not None:
                self._queue.request(stack, target, hopeless=self._backed_off(stack, one))

    async def settle(self) -> None:
        """Have killed commands settled, now and then.

        A target on which one had started something is looked at again, and the repair that follows settles it. If there
        is no such target the stack alone is queued; so is a destroyed stack that owns nothing any more.

        Raises:
            GarrisonError: the store cannot be read.
        """
        now = self._fleet.clock.monotonic()
        if now < self._settle_due:
            return
        self._settle_due = now + _SETTLE_SECONDS
        running = await self._fleet.read(self._fleet.store.begun)
        owing = self._list.owing() if self._list.ending else set()
        for stack in [name for name in self._list.heads if not self._queue.works_on(name)]:
            before, begun = self._list.begun.get(stack), running.get(stack, set())
            self._list.begun[stack] = begun
            watched = [self._list.targets[name] for name in begun if name in self._list.targets]
            for one in watched:
                one.calm = None
                if before != begun:
                    self._schedule.set(one.spec.name, now)
            over = stack in self._list.ending and stack not in owing
            if (stack in running or over) and not watched:
                self._queue.request(stack, None)

    def _began(self, stack: str, target: str) -> bool:
        return target in self._list.begun.get(stack, ())

    def _work(self, stack: str, one: Watched, seen: Sighting) -> AgentWork:
        declaration = self._list.heads[stack]
        here = replace(declaration, targets={one.spec.name: one.spec}, adapters=tuple(one.adapters.get(stack, ())))
        restore = declaration.policy.on_drift == "restore"
        drafted = plan(
            here,
            one.resources,
            {seen.target: seen},
            mode="destroy" if stack in self._list.ending else "reconcile",
            options=PlanOptions(force=restore),
            staged_path=lambda _target, digest: self._fleet.artifacts.staged_path(one.spec, digest),
            faults=self._faults(),
            demand=self._fleet.traffic.demand(),
        )
        owned = [resource for resource in one.resources if resource.stack == stack]
        hopeless = self._backed_off(stack, one)
        return agent_work(drafted, owned, [seen], restore=restore, hopeless=hopeless, told=self._reported)

    def _ended(self, stack: str, result: Repaired | GarrisonError | None) -> None:
        """Learn from the end of a batch."""
        self._changed()
        if result is None or isinstance(result, ConflictError):  # the holder does it; the next look shows what is left
            return
        if isinstance(result, GarrisonError):
            self._state.failed += 1
            self._view.note(f"{stack}: {result.message}")
            return
        self._state.repaired += sum(one.action.acts and one.failure is None for one in result.outcomes)
        self._state.failed += len(result.failed) + len(result.stalled)
        self._reported.update({one.resource.key: one.observed.root for one in result.reported if one.observed})
        for name in result.survey.sightings:
            if (one := self._list.targets.get(name)) is not None:
                self._list.learn(one, result.survey.records[name])
        self._back_off(stack, result)
        self._repaired(result)
        now = self._fleet.clock.monotonic()
        for outcome in result.outcomes:
            one = self._list.targets.get(outcome.action.target)
            if one is not None and outcome.state is ActionState.DONE and not self._keeps_being_undone(
                one, stack, outcome
            ):  # fmt: skip
                self._schedule.set(one.spec.name, now)  # confirm it by a look

    def _back_off(self, stack: str, result: Repaired) -> None:
        now = self._fleet.clock.monotonic()
        for outcome in result.outcomes:
            if outcome.state is ActionState.DONE:
                self._backoff.succeeded(stack, outcome.action.key)
        for key, passing in {**dict.fromkeys(result.failed, False), **dict.fromkeys(result.stalled, True)}.items():
            if (one := self._list.targets.get(key.target)) is not None:
                about = self._circumstances(one, key)
                self._backoff.failed(stack, key, about, now=now, interval=one.interval, passing=passing)

    def _keeps_being_undone(self, one: Watched, stack: str, outcome: Outcome) -> bool:
        """Return whether somebody undid the action soon after, repeatedly; report when that begins."""
        if not undone_by_somebody(outcome):
            return False
        now = self._fleet.clock.monotonic()
        restores = self._backoff.restored(outcome.action.key, now=now, interval=one.interval)
        if restores == 2:
            self._record(
                [
                    Event(
                        at=self._fleet.clock.now(),
                        kind=events.DRIFT,
                        stack=stack,
                        target=outcome.action.target,
                        name=outcome.action.name,
                        cause="fights",
                        after={"restores": restores},
                    )
                ]
            )
        return restores > 1

    def _backed_off(self, stack: str, one: Watched) -> set[Key]:
        return self._backoff.keys(
            stack, one.spec.name, lambda key: self._circumstances(one, key), now=self._fleet.clock.monotonic()
        )

    def _failed(self, stack: str, error: BaseException) -> None:
        self._bug(f"repairing {stack}", error)

    def _circumstances(self, one: Watched, key: Key) -> object:
        """Return what a permanent failure depends on: when it changes, the adapter is tried again at once."""
        declared = [spec for specs in one.adapters.values() for spec in specs if spec.served_name == key.name]
        tries = [self._fleet.traffic.tries(spec.target, spec.lora_name) for spec in declared]
        return declared, one.record.capabilities.get("started_at"), one.record.spec, tries
