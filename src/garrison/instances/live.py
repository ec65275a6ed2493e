"""One instance while the server runs: its record, its engine, and the requests that use it or wait for it.

Everything here belongs to one event loop and never awaits, so each method is one step that nothing can interleave
with. That is what keeps an instance from being evicted between the end of a wait and the request it was for.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from garrison.base.errors import GarrisonError
from garrison.instances.restarts import Restarts
from garrison.instances.runner import Progress, RunningEngine, Sleeper, Upstream
from garrison.instances.values.record import InstanceRecord
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State

__all__ = ["Door", "Lease", "Live"]


@dataclass(eq=False, slots=True)
class Lease:
    """The right of one request to an engine, until it is released. Releasing twice is one release."""

    upstream: Upstream
    _release: Callable[[], None]
    _held: bool = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self._release()


class Door(Protocol):
    """Somebody outside of this event loop who lets requests through to engines: a process of the gateway.

    It counts its requests with `Live.count`, a moment late.
    """

    def opened(self, live: "Live") -> None:
        """Requests may go to the instance."""

    def close(self, live: "Live") -> bool:
        """Let no further request through. Returns whether `Live.closed` will be called once that is so; otherwise it
        is so already."""


@dataclass(eq=False, slots=True)
class Live:
    """One instance.

    Attributes:
        engine: None unless it is ready, or asleep.
        admits: requests are let through; False while it drains or sleeps.
        leases: requests that use it.
        doors: of all instances.
        closing: doors that may still let a request through, although it admits none.
        outside: requests by door; they are part of `leases`.
        waiters: requests that wait for it, oldest first, with the loop's time at which each came.
        used_at: the loop's time at the end of the last request, or when it became ready.
        held: bytes by device that it is taken to use; None while it has neither an engine nor a place for one.
        asleep: the engine sleeps, or is being woken; `record.sleep` says how.
        context: tokens that a request may have with its answer, as the engine said last; None where it does not tell.
        sleeper: how the engine is put to sleep; None where it cannot be, or is not known yet.
        began_at: the loop's time at which its engine was last started or woken; `ready_at`: and answered.
        start: the job that starts or wakes it.
        asked_at: the loop's time at which `start` was asked for.
        gentle: that job ends, rather than make another instance leave.
        again: it is to be started once it is stopped or asleep, although no request waits.
        placed: `held` and `devices` are the place that it was given for that, although it may be asleep.
        stop: the job that stops it or puts it to sleep.
        rests: that job may end in sleep, and may be turned back.
        barred: a command stops it, so that nothing starts it meanwhile.
        restart: the timer or job that will restart it.
        restart_at: the loop's time of that.
        failure: the error of the last start or run, while it counts as failed.
        failures: starts that have failed since one succeeded.
        resumes: it was running before this server, and comes back when there is room.
    """

    record: InstanceRecord
    on_idle: Callable[["Live"], None] = lambda _: None
    engine: RunningEngine | None = None
    admits: bool = False
    leases: int = 0
    doors: "list[Door]" = field(default_factory=list)
    closing: "set[Door]" = field(default_factory=set)
    outside: "dict[Door, int]" = field(default_factory=dict)
    waiters: deque[tuple[float, "asyncio.Future[Lease]"]] = field(default_factory=deque)
    used_at: float = 0.0
    ready_at: float = 0.0
    held: dict[str, int] | None = None
    devices: tuple[str, ...] = ()
    asleep: bool = False
    context: int | None = None
    sleeper: Sleeper | None = None
    progress: Progress | None = None
    started_at: float | None = None
    began_at: float = 0.0
    start: "asyncio.Task[None] | None" = None
    asked_at: float = 0.0
    gentle: bool = False
    again: bool = False
    placed: bool = False
    stop: "asyncio.Task[None] | None" = None
    rests: bool = False
    barred: bool = False
    restart: "asyncio.Task[None] | None" = None
    restart_at: float = 0.0
    watch: "asyncio.Task[None] | None" = None
    measure: "asyncio.Task[None] | None" = None
    restarts: Restarts = field(default_factory=Restarts)
    failure: GarrisonError | None = None
    failed_at: float = 0.0
    failures: int = 0
    resumes: bool = False
    commands: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return self.record.spec.name

    @property
    def spec(self) -> InstanceSpec:
        return self.record.spec

    @property
    def state(self) -> State:
        return self.record.condition.state

    @property
    def busy(self) -> bool:
        return self.leases > 0 or self.start is not None or self.stop is not None

    @property
    def home(self) -> tuple[str, ...]:
        """The GPUs on which a sleeping engine comes back; empty for any."""
        return self.record.sleep.devices if self.asleep else ()

    def oldest_wait(self, now: float) -> float:
        """Seconds that the oldest waiting request has waited, or, where there is none, the start that was asked for."""
        if self.waiters:
            return now - self.waiters[0][0]
        return now - self.asked_at if self.start is not None else 0.0

    def lease(self) -> Lease | None:
        """Let a request through; None where it has to wait."""
        if self.engine is None or not self.admits:
            return None
        self.leases += 1
        return Lease(self.engine.upstream, self._released)

    def join(self) -> "asyncio.Future[Lease]":
        """Wait with the others. Whoever gives up calls `give_up`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Lease] = loop.create_future()
        self.waiters.append((loop.time(), future))
        return future

    def give_up(self, future: "asyncio.Future[Lease]") -> None:
        """Leave the queue. A lease that was given in the meantime is released."""
        self.waiters = deque(one for one in self.waiters if one[1] is not future)
        if future.done() and not future.cancelled() and future.exception() is None:
            future.result().release()

    def ready(self, engine: RunningEngine, now: float) -> None:
        """The engine answers: let every waiting request through, in one step."""
        self.engine, self.asleep = engine, False
        self.ready_at = self.used_at = now
        self.failure, self.failures = None, 0
        self.admit()

    def admit(self) -> None:
        """Let requests through, those that wait first."""
        self.admits = True
        self.closing.clear()
        for door in self.doors:
            door.opened(self)
        waiting, self.waiters = self.waiters, deque()
        for _, future in waiting:
            if not future.done() and (lease := self.lease()) is not None:
                future.set_result(lease)

    def bar(self) -> None:
        """Let no further request through. Doors may do so for a moment; see `closing`."""
        if self.admits:
            self.admits = False
            self.closing = {door for door in self.doors if door.close(self)}

    def count(self, door: Door, running: int) -> None:
        """So many requests go through a door."""
        before = self.outside.pop(door, 0)
        if running:
            self.outside[door] = running
        self.leases += running - before
        if before and not self.leases:
            self._now_idle()

    def closed(self, door: Door, running: int) -> None:
        """A door lets no further request through; so many are in progress."""
        self.count(door, running)
        self.closing.discard(door)

    def refuse_waiters(self, error: GarrisonError) -> None:
        """Every waiting request gets the cause."""
        waiting, self.waiters = self.waiters, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)

    def gone(self) -> None:
        """The engine has ended."""
        self.bar()
        self.engine, self.sleeper, self.asleep = None, None, False

    def give_back_place(self) -> None:
        """It does not keep the place that it had or asked for. What a sleeping engine holds, it goes on holding."""
        self.placed = False
        if self.asleep:
            self.held, self.devices = dict(self.record.sleep.held), self.record.sleep.devices
        else:
            self.held, self.devices = None, ()

    def _released(self) -> None:
        self.leases -= 1
        if self.leases == 0:
            self._now_idle()

    def _now_idle(self) -> None:
        self.used_at = asyncio.get_running_loop().time()
        self.on_idle(self)
