"""Telling others: events go to webhooks and commands, in order for each, and never in anybody's way.

    hooks = Hooks(HookDelivery(dialer, secrets), clock=clock, note=view.note)
    hooks.watch(declarations)        # again whenever they change
    hooks.offer(event)               # returns at once
    await hooks.close(5.0)

Each hook has a queue of its own, so that one that does not answer delays no other. A full queue drops its oldest event;
how many were dropped is in the next one that is delivered. What is sent is one JSON object:

    kind      drift, restored, unreachable or recovered
    at        when, ISO 8601 in UTC
    stack     whose adapter; null where it is about a target
    target, name, cause, command     null where there is none
    before, after                    objects, or null
    id        of the event in the history; it grows
    dropped   events that this hook was not told of since the one before
"""

import asyncio
import json
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from garrison.base.clock import Clock
from garrison.fleet.bugs import bug_of, bug_words
from garrison.fleet.declaration import Declaration, Hook
from garrison.fleet.events import HOOK_KINDS
from garrison.fleet.failure import Failure
from garrison.fleet.hook_delivery import shown
from garrison.fleet.retry import RetryBudget, decide_retry
from garrison.store.records import Event

__all__ = ["HOOK_RETRIES", "Deliver", "Hooks", "event_json"]

HOOK_RETRIES = RetryBudget(attempts=6, seconds=300.0, first=1.0, longest=60.0, longest_asked=120.0)


class Deliver(Protocol):
    async def deliver(self, hook: Hook, body: Mapping[str, Any]) -> Failure | None:
        """Tell `hook` once, within a deadline. None: it took it."""


@dataclass(slots=True)
class _Queue:
    """`current` is being delivered and no longer waits."""

    hook: Hook
    current: Event | None = None
    waiting: deque[Event] = field(default_factory=deque)
    dropped: int = 0
    worker: "asyncio.Task[None] | None" = None


@dataclass(frozen=True, slots=True)
class _Subscription:
    """`targets`: those of the stack, for events that are about a target alone."""

    stack: str
    targets: frozenset[str]
    hook: Hook
    key: str

    def wants(self, event: Event) -> bool:
        if event.kind not in HOOK_KINDS or event.kind not in self.hook.on:
            return False
        return event.stack == self.stack or (event.stack is None and event.target in self.targets)


class Hooks:
    """The hooks of some stacks. Belongs to one event loop.

    Args:
        note: told when a hook is given up for an event, or events are dropped.
        limit: events a queue holds.
        sleep: how waits between attempts pass.
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
        """From now on the hooks of these. What was offered to others before is still delivered."""
        self._subscriptions = tuple(
            _Subscription(one.stack, frozenset(one.targets), hook, json.dumps(hook.to_json(), sort_keys=True))
            for one in declarations
            for hook in one.hooks
        )
        kept = {one.key for one in self._subscriptions}
        self._queues = {key: one for key, one in self._queues.items() if key in kept or one.worker is not None}

    def offer(self, event: Event) -> None:
        """Queue it for who wants it; once for a hook that several stacks share."""
        if self._closed:
            return
        for key, hook in {one.key: one.hook for one in self._subscriptions if one.wants(event)}.items():
            self._put(self._queues.setdefault(key, _Queue(hook)), event)

    async def close(self, seconds: float) -> int:
        """Take no more events, give those that wait `seconds`, then leave. How many were left undelivered."""
        self._closed = True
        workers = [queue.worker for queue in self._queues.values() if queue.worker is not None]
        if workers:
            await asyncio.wait(workers, timeout=seconds)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        left = sum(len(queue.waiting) + (queue.current is not None) for queue in self._queues.values())
        if left:
            what = "1 event was" if left == 1 else f"{left} events were"
            self._note(f"{what} not delivered to their hooks before the end")
        return left

    def _put(self, queue: _Queue, event: Event) -> None:
        if len(queue.waiting) >= self._limit:
            queue.waiting.popleft()
            if not queue.dropped:
                self._note(f"{shown(queue.hook)} does not keep up: its oldest events are dropped")
            queue.dropped += 1
        queue.waiting.append(event)
        if queue.worker is None:
            self._start(queue)

    def _start(self, queue: _Queue) -> None:
        queue.worker = asyncio.get_running_loop().create_task(self._work(queue))
        queue.worker.add_done_callback(lambda task: self._ended(queue, task))

    def _ended(self, queue: _Queue, task: "asyncio.Task[None]") -> None:
        """An unexpected error costs the event under way, not the events behind it."""
        queue.worker = None
        if (error := bug_of(task)) is None:
            return
        self._note(f"a bug in Garrison, in telling {shown(queue.hook)}: {bug_words(error)}")
        queue.current = None
        queue.dropped += 1
        if queue.waiting and not self._closed:
            self._start(queue)

    async def _work(self, queue: _Queue) -> None:
        """Until nothing waits."""
        while queue.waiting:
            event = queue.current = queue.waiting.popleft()
            dropped = queue.dropped
            failure = await self._insist(queue.hook, event_json(event) | {"dropped": dropped})
            if failure is None:
                queue.dropped -= dropped
            else:
                self._note(f"{shown(queue.hook)} was not told of {event.kind} ({event.target}): {failure.message}")
                queue.dropped += 1
            queue.current = None

    async def _insist(self, hook: Hook, body: Mapping[str, Any]) -> Failure | None:
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
    """JSON-ready, without `dropped`."""
    return {
        "kind": event.kind,
        "at": event.at.isoformat(),
        "stack": event.stack,
        "target": event.target,
        "name": event.name,
        "cause": event.cause,
        "before": dict(event.before) if event.before is not None else None,
        "after": dict(event.after) if event.after is not None else None,
        "command": event.command,
        "id": event.id,
    }
