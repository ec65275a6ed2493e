"""Sends events to webhooks and commands, in order per hook, without delaying the caller or each other.

    hooks = Hooks(HookDelivery(dialer, secrets), clock=clock, note=view.note)
    hooks.watch(declarations)        # again whenever they change
    hooks.offer(event)               # returns at once
    await hooks.close(5.0)

Each hook has its own queue, so that a hook that does not answer delays no other. A full queue drops its oldest event;
the next event that is delivered says how many were dropped. The payload is one JSON object:

    kind      drift, restored, unreachable or recovered
    at        time, ISO 8601 in UTC
    stack     owner of the adapter; null for an event about a target
    target, name, cause, command     null if not applicable
    subject   {kind, name}: what it happened to, such as {"kind": "adapter", "name": "edge-1/sql"}
    before, after                    objects, or null
    id        of the event in the history; increasing
    dropped   number of events not delivered to this hook since the previous one
"""

import asyncio
import json
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from garrison.base.bugs import bug_of, bug_words
from garrison.base.clock import Clock
from garrison.fleet.execute.retry import RetryBudget, decide_retry
from garrison.fleet.hooks.delivery import shown
from garrison.fleet.values.declaration import Declaration, Hook
from garrison.fleet.values.events import HOOK_KINDS
from garrison.fleet.values.failure import Failure
from garrison.store.records import Event

__all__ = ["HOOK_RETRIES", "Deliver", "Hooks", "event_json"]

HOOK_RETRIES = RetryBudget(attempts=6, seconds=300.0, first=1.0, longest=60.0, longest_asked=120.0)


class Deliver(Protocol):
    """Delivers one event to one hook."""

    async def deliver(self, hook: Hook, body: Mapping[str, Any]) -> Failure | None:
        """Make one attempt, within a deadline. Returns None on success."""


@dataclass(slots=True)
class _Queue:
    """Events of one hook. `current` is being delivered and is no longer in `waiting`."""

    hook: Hook
    current: Event | None = None
    waiting: deque[Event] = field(default_factory=deque)
    dropped: int = 0
    worker: "asyncio.Task[None] | None" = None


@dataclass(frozen=True, slots=True)
class _Subscription:
    """One hook of one stack. `targets` are the stack's, for events about a target rather than an adapter."""

    stack: str
    targets: frozenset[str]
    hook: Hook
    key: str

    def wants(self, event: Event) -> bool:
        if event.kind not in HOOK_KINDS or event.kind not in self.hook.on:
            return False
        return event.stack == self.stack or (event.stack is None and event.target in self.targets)


class Hooks:
    """The hooks of several stacks. Belongs to one event loop.

    Args:
        deliver: makes single attempts.
        note: called with a message when an event could not be delivered, or events were dropped.
        draws: source of jitter.
        limit: maximum number of events in a queue.
        retries: budget for one event.
        sleep: waits between attempts.
    """

    def __init__(
        self,
        deliver: Deliver,
        *,
        clock: Clock,
        note: Callable[[str], None],
        draws: random.Random | None = None,
        limit: int = 256,
        retries: RetryBudget = HOOK_RETRIES,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._deliver = deliver
        self._clock = clock
        self._note = note
        self._draws = draws or random.Random()  # noqa: S311 - jitter, not a secret
        self._limit = limit
        self._retries = retries
        self._sleep = sleep
        self._subscriptions: tuple[_Subscription, ...] = ()
        self._queues: dict[str, _Queue] = {}
        self._closed = False

    def watch(self, declarations: Iterable[Declaration]) -> None:
        """Replace the hooks by those of `declarations`. Events already queued for other hooks are still delivered."""
        self._subscriptions = tuple(
            _Subscription(one.stack, frozenset(one.targets), hook, json.dumps(hook.to_json(), sort_keys=True))
            for one in declarations
            for hook in one.hooks
        )
        kept = {one.key for one in self._subscriptions}
        self._queues = {key: one for key, one in self._queues.items() if key in kept or one.worker is not None}

    def offer(self, event: Event) -> None:
        """Queue `event` for every hook subscribed to it; once for a hook that several stacks share."""
        if self._closed:
            return
        for key, hook in {one.key: one.hook for one in self._subscriptions if one.wants(event)}.items():
            self._put(self._queues.setdefault(key, _Queue(hook)), event)

    async def close(self, seconds: float) -> int:
        """Accept no more events, allow `seconds` to deliver those queued, and return how many were not delivered."""
        self._closed = True  # first: a worker that fails from now on is not replaced
        workers = [queue.worker for queue in self._queues.values() if queue.worker is not None]
        if workers:
            await asyncio.wait(workers, timeout=seconds)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        left = sum(len(queue.waiting) + (queue.current is not None) for queue in self._queues.values())
        if left:
            what = "1 event was" if left == 1 else f"{left} events were"
            self._note(f"{what} not delivered to hooks before shutdown")
        return left

    def _put(self, queue: _Queue, event: Event) -> None:
        if len(queue.waiting) >= self._limit:
            queue.waiting.popleft()
            if not queue.dropped:
                self._note(f"{shown(queue.hook)} does not keep up; dropping its oldest events")
            queue.dropped += 1
        queue.waiting.append(event)
        if queue.worker is None:
            self._start(queue)

    def _start(self, queue: _Queue) -> None:
        queue.worker = asyncio.get_running_loop().create_task(self._work(queue))
        queue.worker.add_done_callback(lambda task: self._ended(queue, task))

    def _ended(self, queue: _Queue, task: "asyncio.Task[None]") -> None:
        """Start a new worker for events that came while this one ended, or that wait behind an unexpected error, which
        costs one event."""
        queue.worker = None
        if (error := bug_of(task)) is not None:
            self._note(f"bug in Garrison while delivering to {shown(queue.hook)}: {bug_words(error)}")
            queue.current = None
            queue.dropped += 1
        if queue.waiting and not self._closed:
            self._start(queue)

    async def _work(self, queue: _Queue) -> None:
        """Deliver events until the queue is empty."""
        while queue.waiting:
            event = queue.current = queue.waiting.popleft()
            dropped = queue.dropped  # more may be dropped while this event is on its way
            failure = await self._deliver_within_budget(queue.hook, event_json(event) | {"dropped": dropped})
            if failure is None:
                queue.dropped -= dropped
            else:
                self._note(f"{shown(queue.hook)}: {event.kind} of {event.target} not delivered: {failure.message}")
                queue.dropped += 1
            queue.current = None

    async def _deliver_within_budget(self, hook: Hook, body: Mapping[str, Any]) -> Failure | None:
        started, attempt = self._clock.monotonic(), 1
        while (failure := await self._deliver.deliver(hook, body)) is not None:
            decision = decide_retry(
                self._retries,
                attempt=attempt,
                failure=failure,
                elapsed=self._clock.monotonic() - started,
                draw=self._draws.random(),
            )
            if decision.wait is None:
                return failure
            await self._sleep(decision.wait)
            attempt += 1
        return None


def event_json(event: Event) -> dict[str, Any]:
    """Return the JSON-ready payload, without `dropped`; `event_from_json` reads back an equal event."""
    return {
        "kind": event.kind,
        "at": event.at.isoformat(),
        "stack": event.stack,
        "target": event.target,
        "name": event.name,
        "subject": {"kind": event.subject_kind, "name": event.subject_name},
        "cause": event.cause,
        "before": dict(event.before) if event.before is not None else None,
        "after": dict(event.after) if event.after is not None else None,
        "command": event.command,
        "id": event.id,
    }


def event_from_json(body: Mapping[str, Any]) -> Event:
    """Read what `event_json` returned."""
    subject = body["subject"]
    return Event(
        at=datetime.fromisoformat(body["at"]),
        kind=body["kind"],
        stack=body["stack"],
        target=body["target"],
        name=body["name"],
        cause=body["cause"],
        before=body["before"],
        after=body["after"],
        command=body["command"],
        subject_kind=subject["kind"],
        subject_name=subject["name"],
        id=body["id"],
    )
