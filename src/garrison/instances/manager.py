"""The instances of one machine: created, changed, started on demand, stopped, adopted after a restart of the server.

Commands on one instance run one after the other, those on different ones side by side. Requests take part in neither:
`acquire` lets them through or has them wait.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from garrison.base.clock import Clock
from garrison.base.errors import ConflictError, GarrisonError, NotReadyError
from garrison.base.events import EventBus
from garrison.instances.book import Book, instance_event
from garrison.instances.instance_store import InstanceStore
from garrison.instances.lifecycle import Lifecycle
from garrison.instances.live import Lease, Live
from garrison.instances.placing import Devices
from garrison.instances.room.explain import Explanation
from garrison.instances.runner import Launch, Runner
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.record import InstanceRecord
from garrison.instances.values.spec import InstanceSpec, require_name
from garrison.instances.values.state import Condition, State
from garrison.instances.writer import Writer
from garrison.net.thread_pool import ThreadPool
from garrison.store.records import Event

__all__ = ["InstanceManager"]

_FLUSH_SECONDS = 10.0


class InstanceManager:
    """All instances of this machine. Belongs to one event loop.

    Args:
        pool: one thread that the store is called on.

    Attributes:
        bus: every event of an instance.
    """

    def __init__(
        self,
        store: InstanceStore,
        runner: Runner,
        devices: Devices,
        settings: ManagerSettings,
        *,
        clock: Clock,
        pool: ThreadPool,
    ) -> None:
        self.bus: EventBus[Event] = EventBus()
        self.settings = settings
        self._runner = runner
        self._clock = clock
        self._writer = Writer(store, pool)
        self._book = Book(self._writer, clock, self.bus)
        self._creating: dict[str, InstanceSpec] = {}
        self._life = Lifecycle(self._book, runner, devices, settings)

    # Life of the manager

    async def startup(self) -> None:
        """Load what is stored, adopt the engines that still run, and start those that should be running."""
        for record in await self._writer.call(lambda store: store.load(), "read the instances"):
            self._book.add(record)
        await asyncio.gather(*(self._resume(live) for live in self._book))

    async def shutdown(self, *, stop: bool = False) -> None:
        """Let go of every engine, to be adopted by the next server; with `stop`, stop them."""
        for live in self._book:
            self._life.cancel_restart(live)
            if live.start is not None and (stop or live.engine is None):
                live.start.cancel()
        await _settled(live.start for live in self._book)
        if stop:
            for live in self._book:
                self._life.begin_stop(live, "the server ends")
        await _settled(live.stop for live in self._book)
        for live in self._book:
            if live.watch is not None:
                live.watch.cancel()
            if live.engine is not None:
                await live.engine.leave()
        await self._writer.close(_FLUSH_SECONDS)

    async def _resume(self, live: Live) -> None:
        """Find out what became of an instance while no server ran."""
        port = live.record.port
        engine = None
        if port is not None:
            try:
                engine = await self._runner.adopt(Launch(live.spec, port, (), self.settings.stop_timeout))
            except GarrisonError as error:
                live.failure = error
        if engine is not None:
            if live.state is not State.RUNNING:
                live.record = replace(live.record, condition=Condition(State.STARTING, self._clock.now()))
            live.held = dict(live.record.costs.memory_bytes)
            self._life.serve(live, engine, live.record.costs, "adopted")
            return
        if live.state not in (State.STOPPED, State.FAILED):
            ended = Condition(State.STOPPED, self._clock.now(), "it did not run when the server started")
            live.record = replace(live.record, condition=ended)
            self._writer.put(live.record)
        if live.record.wanted:
            self._life.begin_start(live)

    # Looking

    def list(self) -> list[Live]:
        """Return the instances, by name."""
        return sorted(self._book, key=lambda live: live.name)

    def get(self, name: str) -> Live:
        """Return one instance. Raises NotFoundError."""
        return self._book.get(name)

    def find(self, name: str) -> Live | None:
        """Return one instance; None if there is none of that name."""
        return self._book.find(name)

    async def changed(self, seconds: float | None = None) -> None:
        """Wait until something about an instance changes, at most `seconds`."""
        await self._book.changed(seconds)

    async def explain(self, name: str) -> Explanation:
        """What a start would do now, and why. Raises NotFoundError."""
        return await self._life.placer.explain(self._book.get(name))

    async def evaluate(self, spec: InstanceSpec) -> Explanation:
        """What a start of an instance that does not exist would do now, and why."""
        now = self._clock.now()
        return await self._life.placer.explain(Live(InstanceRecord(0, spec, Condition(State.STOPPED, now), now, now)))

    # Commands

    async def create(self, spec: InstanceSpec) -> Live:
        """Create a stopped instance.

        Raises:
            InvalidError: the name cannot be used.
            ConflictError: there is one of that name, its port belongs to another one, or there are too many.
        """
        require_name(spec.name)
        if self._book.find(spec.name) is not None or spec.name in self._creating:
            raise ConflictError(
                f"instance {spec.name!r} exists already", hint="Choose another name, or change that one.",
                details={"instance": spec.name},
            )  # fmt: skip
        self._check_free(spec)
        most = self.settings.most
        if most is not None and len(self._book) + len(self._creating) >= most:
            raise ConflictError(f"{most} instances exist, which is the limit", hint="Delete one, or raise the limit.")
        now = self._clock.now()
        record = InstanceRecord(0, spec, Condition(State.STOPPED, now, "created"), now, now)
        told = instance_event("created", record)
        self._creating[spec.name] = spec
        try:
            stored = await self._writer.call(lambda store: store.create(record, [told]), f"create {spec.name}")
        finally:
            del self._creating[spec.name]
        live = self._book.add(stored)
        self.bus.publish(told)
        self._book.tell()
        return live

    async def update(self, name: str, spec: InstanceSpec, *, revision: int | None = None) -> bool:
        """Replace what an instance is.

        Args:
            revision: the one that the caller saw; None for whichever it is.

        Returns:
            Whether it is restarted for it, because it runs and the engine's command changes.

        Raises:
            NotFoundError: there is none.
            ConflictError: it was changed since, or the port belongs to another one.
        """
        live = self._book.get(name)
        async with live.commands:
            if revision is not None and revision != live.record.revision:
                raise ConflictError(
                    f"instance {name} was changed by somebody else", hint="Read it again, and repeat the change.",
                    details={"revision": live.record.revision},
                )  # fmt: skip
            if spec == live.spec:
                return False
            self._check_free(spec)
            before, live.record = (
                live.record,
                replace(
                    live.record,
                    spec=spec,
                    revision=live.record.revision + 1,
                    updated=self._clock.now(),
                    port=spec.port or live.record.port,
                ),
            )
            told = instance_event("changed", live.record)
            self._writer.put(live.record, told)
            self.bus.publish(told)
            restarts = before.spec.restarts_for(spec) and (live.engine is not None or live.start is not None)
            if restarts:
                await self._stop_now(live, "its settings changed")
                self._want(live)
            await self._writer.flush()
            return restarts

    async def delete(self, name: str) -> None:
        """Delete a stopped instance. One that does not exist is deleted already.

        Raises:
            ConflictError: it runs.
        """
        live = self._book.find(name)
        if live is None:
            return
        async with live.commands:
            if live.engine is not None or live.start is not None or live.stop is not None:
                raise ConflictError(f"instance {name} is {live.state}", hint=f"garrison instance stop {name}")
            self._life.cancel_restart(live)
            self._writer.drop(live.record)
            told = instance_event("deleted", replace(live.record, updated=self._clock.now()))
            await self._writer.call(lambda store: store.delete(live.record, [told]), f"delete {name}")
            self._book.remove(live)
            self.bus.publish(told)
            await self._runner.forget(name)

    async def start(self, name: str) -> Live:
        """Begin to start an instance, and see that it goes on running. Raises NotFoundError."""
        live = self._book.get(name)
        async with live.commands:
            live.restarts = replace(live.restarts, used=0)
            self._want(live)
        return live

    async def stop(self, name: str, reason: str = "stopped by a command") -> Live:
        """Stop an instance, and return when none of its processes is left. Raises NotFoundError."""
        live = self._book.get(name)
        async with live.commands:
            self._book.note(live, wanted=False)
            await self._stop_now(live, reason)
        return live

    async def restart(self, name: str) -> Live:
        """Stop an instance and begin to start it. Raises NotFoundError."""
        live = self._book.get(name)
        async with live.commands:
            await self._stop_now(live, "restarted by a command")
            self._want(live)
        return live

    async def eject(self) -> None:
        """Stop every instance that may be started on demand again, pinned ones too."""
        await asyncio.gather(*(self.stop(live.name, "ejected") for live in self._book if live.engine is not None))

    def _want(self, live: Live) -> None:
        self._book.note(live, wanted=True)
        self._life.begin_start(live)

    async def _stop_now(self, live: Live, reason: str) -> None:
        if self._life.cancel_restart(live):
            self._book.move(live, State.STOPPED, reason)
        if live.start is not None and live.engine is None and live.stop is None:
            live.start.cancel()
            await _settled([live.start])
        self._life.begin_stop(live, reason)
        await _settled([live.stop])

    def _check_free(self, spec: InstanceSpec) -> None:
        other = self._book.find(spec.name)
        for one in self._book:
            if one is not other and spec.port is not None and spec.port in (one.spec.port, one.record.port):
                raise ConflictError(f"port {spec.port} belongs to instance {one.name}", hint="Choose another port.")
        for name, made in self._creating.items():
            if spec.port is not None and made.port == spec.port:
                raise ConflictError(f"port {spec.port} belongs to instance {name}", hint="Choose another port.")

    # Requests

    async def acquire(self, name: str, *, timeout: float | None = None) -> Lease:
        """Return a lease on a ready engine, after a start if that is necessary. The caller releases it.

        Args:
            timeout: seconds to wait; None for the configured limit.

        Raises:
            NotFoundError: there is no such instance.
            NotReadyError: it does not run and is not started on demand, or was not ready in time.
            GarrisonError: the start failed; the cause.
        """
        live = self._book.get(name)
        if (lease := live.lease()) is not None:
            return lease
        self._may_wait(live)
        seconds = self.settings.start_timeout if timeout is None else timeout
        future = live.join()
        if live.restart is None:
            self._life.begin_start(live)
        self._book.tell()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(future)
        except TimeoutError:
            live.give_up(future)
            raise self._not_ready(live, f"was not ready within {seconds:g} s") from None
        except BaseException:
            live.give_up(future)
            raise

    def _may_wait(self, live: Live) -> None:
        starting = live.start is not None or live.stop is not None or live.restart is not None
        if not live.spec.on_demand and not starting:
            raise self._not_ready(live, "is not running, and is not started on demand")
        if live.failure is not None and not starting:
            since = asyncio.get_running_loop().time() - live.failed_at
            if since < live.spec.restart_delay:
                raise live.failure
        if len(live.waiters) >= self.settings.queue:
            raise self._not_ready(live, f"has {len(live.waiters)} requests waiting for it already")

    def _not_ready(self, live: Live, text: str) -> NotReadyError:
        details: dict[str, object] = {"instance": live.name, "retry_after": self.retry_after(live)}
        if live.start is not None:
            details["loading"] = self.loading(live)
        return NotReadyError(f"instance {live.name} {text}", hint="Ask again later.", details=details)

    def loading(self, live: Live) -> dict[str, object]:
        """Where a start is, for whoever waits: state, phase, seconds, and the remaining time where past starts give
        one."""
        now = asyncio.get_running_loop().time()
        found: dict[str, object] = {"state": str(live.state), "reason": live.record.condition.reason}
        if live.progress is not None:
            found |= {"phase": live.progress.phase, "seconds": round(live.progress.seconds, 1)}
        if (usual := live.record.costs.start_seconds) is not None and live.start is not None:
            found["remaining"] = round(max(0.0, usual - (now - live.started_at)), 1)
        return found

    def retry_after(self, live: Live) -> int:
        """Seconds after which to ask again."""
        remaining = self.loading(live).get("remaining")
        return max(1, min(60, round(remaining))) if isinstance(remaining, float) else 5


async def _settled(tasks: Iterable["asyncio.Task[None] | None"]) -> None:
    found = [one for one in tasks if one is not None]
    if found:
        await asyncio.wait(found)
