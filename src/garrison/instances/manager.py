"""The instances of one machine: created, changed, started on demand, stopped, adopted after a restart of the server.

Commands on one instance run one after the other, those on different ones side by side. Requests take part in neither:
`acquire` lets them through or has them wait.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace

from garrison.base.clock import Clock
from garrison.base.errors import ConflictError, GarrisonError, InvalidError, NotFoundError
from garrison.base.events import EventBus
from garrison.instances.adoption import Adoption
from garrison.instances.book import Book, instance_event
from garrison.instances.instance_store import InstanceStore
from garrison.instances.lifecycle import Lifecycle
from garrison.instances.live import Door, Lease, Live
from garrison.instances.placing import Devices
from garrison.instances.progress import loading, not_ready, refusal, retry_after
from garrison.instances.room.explain import Explanation
from garrison.instances.runner import Runner
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.record import InstanceRecord
from garrison.instances.values.spec import InstanceSpec, require_name
from garrison.instances.values.state import Condition, State
from garrison.instances.warm import keep_warm
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
        self._warm: asyncio.Task[None] | None = None
        self._closing = False

    # Life of the manager

    async def startup(self) -> None:
        """Load what is stored, adopt the engines that still run, and start those that should be running.

        Nothing is started before every engine that runs is known, since each takes room. What should be running comes
        in the order of priorities, and waits for room where there is none.
        """
        for record in await self._writer.call(lambda store: store.load(), "read the instances"):
            self._book.add(record)
        await Adoption(self._book, self._runner, self._life, self.settings).resume()
        self._warm = asyncio.create_task(keep_warm(self._book, self._life), name="keep warm")

    async def shutdown(self, *, stop: bool = False) -> None:
        """Let go of every engine, to be adopted by the next server; with `stop`, stop them.

        What is on its way to sleep or back is left there; the next server finds out where.
        """
        self._closing = True
        if self._warm is not None:
            self._warm.cancel()
            await _settled([self._warm])
        for live in self._book:
            live.barred = True
            live.refuse_waiters(self._not_ready(live, "is not available: the server ends"))
            self._life.cancel_restart(live)
            await self._life.interrupt(live)
        if stop:
            for live in self._book:
                self._life.stops.stop(live, "the server ends")
        await _settled(live.stop for live in self._book)
        for live in self._book:
            if live.watch is not None:
                live.watch.cancel()
            if live.measure is not None:
                live.measure.cancel()
            if live.engine is not None:
                await live.engine.leave()
        await self._writer.close(_FLUSH_SECONDS)

    def reconfigure(self, settings: ManagerSettings) -> None:
        """Take other settings, from the next decision on."""
        self.settings = settings
        self._life.reconfigure(settings)
        self._book.tell()

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

    def add_door(self, door: Door) -> None:
        """Have somebody else let requests through, too. It hears of every engine that is ready now."""
        self._book.doors.append(door)
        for live in self._book:
            if live.admits:
                door.opened(live)

    def remove_door(self, door: Door) -> None:
        """It is gone, and its requests with it."""
        self._book.doors.remove(door)
        for live in self._book:
            live.closed(door, 0)
        self._book.tell()

    def told(self) -> None:
        """A door has counted, or closed."""
        self._book.tell()

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
        if spec.name != name:
            raise InvalidError(f"instance {name} cannot be renamed to {spec.name}", hint="Create another one.")
        async with self._command(name) as live:
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
            if before.spec.restarts_for(spec):
                live.context = None
            outdated = before.spec.restarts_for(spec) and (live.engine is not None or live.start is not None)
            restarts = outdated and (not live.asleep or live.start is not None)
            if outdated:
                await self._stop_now(live, "its settings changed")
            if restarts:
                self._want(live)
            await self._writer.flush()
            return restarts

    async def delete(self, name: str) -> None:
        """Delete a stopped instance. One that does not exist is deleted already.

        Raises:
            ConflictError: it runs.
        """
        with contextlib.suppress(NotFoundError):
            async with self._command(name) as live:
                if live.engine is not None or live.start is not None or live.stop is not None:
                    raise ConflictError(f"instance {name} is {live.state}", hint=f"garrison instance stop {name}")
                self._life.cancel_restart(live)
                live.refuse_waiters(NotFoundError(f"instance {name} was deleted", details={"instance": name}))
                self._book.remove(live)  # from this step on no request starts it
                try:
                    await self._forget(live)
                except BaseException:
                    self._book.put_back(live)
                    raise
                await self._runner.forget(name)

    async def _forget(self, live: Live) -> None:
        self._writer.drop(live.record)
        told = instance_event("deleted", replace(live.record, updated=self._clock.now()))
        await self._writer.call(lambda store: store.delete(live.record, [told]), f"delete {live.name}")
        self.bus.publish(told)

    async def start(self, name: str) -> Live:
        """Begin to start or wake an instance, and see that it goes on running. Raises NotFoundError.

        It waits for room as if a request had asked for it, until it is stopped.
        """
        async with self._command(name) as live:
            live.restarts = replace(live.restarts, used=0)
            self._want(live)
        return live

    async def stop(self, name: str, reason: str = "stopped by a command") -> Live:
        """Stop an instance, and return when none of its processes is left. Raises NotFoundError."""
        async with self._command(name) as live:
            self._book.note(live, wanted=False)
            await self._stop_now(live, reason)
        return live

    async def restart(self, name: str) -> Live:
        """Stop an instance and begin to start it. Raises NotFoundError."""
        async with self._command(name) as live:
            await self._stop_now(live, "restarted by a command")
            self._want(live)
        return live

    async def eject(self, name: str | None = None) -> Sequence[str]:
        """Have one instance, or all of them, give up their memory, pinned ones too; requests may start them again.

        Returns:
            Those that were stopped.

        Raises:
            NotFoundError: there is none of that name.
        """
        found = list(self._book) if name is None else [self._book.get(name)]
        ejected = [live.name for live in found if live.engine is not None or live.start is not None]
        for done in await asyncio.gather(*(self.stop(one, "ejected") for one in ejected), return_exceptions=True):
            if isinstance(done, BaseException) and not isinstance(done, NotFoundError):
                raise done
        return ejected

    @contextlib.asynccontextmanager
    async def _command(self, name: str) -> AsyncIterator[Live]:
        """One command on one instance at a time. Raises NotFoundError, also where it was deleted meanwhile."""
        live = self._book.get(name)
        async with live.commands:
            if self._book.find(name) is not live:
                self._book.get(name)
                raise NotFoundError(f"instance {name} was replaced by another one", details={"instance": name})
            yield live

    def _want(self, live: Live) -> None:
        self._book.note(live, wanted=True)
        self._life.begin_start(live)

    async def _stop_now(self, live: Live, reason: str) -> None:
        """Stop it whatever it does. Nothing starts it meanwhile; requests that come wait for what follows."""
        live.barred = True
        try:
            if self._life.cancel_restart(live):
                self._book.move(live, State.STOPPED, reason)
            await self._life.interrupt(live)
            await _settled([live.stop])
            self._life.stops.stop(live, reason)
            await _settled([live.stop])
        finally:
            live.barred, live.again, live.resumes = self._closing, False, False
        if live.waiters:
            self._life.begin_start(live)

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
        seconds = self.settings.start_timeout if timeout is None else timeout
        self._may_wait(live, seconds)
        future = live.join()
        if live.restart is None:
            self._life.begin_start(live)
        self._book.tell()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(future)
        except TimeoutError:
            live.give_up(future)
            self._book.tell()
            raise self._not_ready(live, f"was not ready within {seconds:g} s") from None
        except BaseException:
            live.give_up(future)
            self._book.tell()
            raise

    def _may_wait(self, live: Live, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        if self._closing:
            raise self._not_ready(live, "is not available: the server ends")
        starting = live.start is not None or live.stop is not None or live.restart is not None
        if not live.spec.on_demand and not starting:
            raise self._not_ready(live, "is not running, and is not started on demand")
        if not starting and (failure := refusal(live, now)) is not None:
            raise failure
        if live.restart is not None and live.restart_at - now > seconds:
            cause = live.failure.message if live.failure is not None else "it ended"
            raise self._not_ready(live, f"is restarted in {live.restart_at - now:.0f} s: {cause}")
        if len(live.waiters) >= self.settings.queue:
            raise self._not_ready(live, f"has {len(live.waiters)} requests waiting for it already")

    def _not_ready(self, live: Live, text: str) -> GarrisonError:
        return not_ready(live, asyncio.get_running_loop().time(), text)

    def loading(self, live: Live) -> dict[str, object]:
        """Where a start is, for whoever waits; see `progress.loading`."""
        return loading(live, asyncio.get_running_loop().time())

    def retry_after(self, live: Live) -> int:
        """Seconds after which to ask again."""
        return retry_after(live, asyncio.get_running_loop().time())


async def _settled(tasks: Iterable["asyncio.Task[None] | None"]) -> None:
    found = [one for one in tasks if one is not None]
    if found:
        await asyncio.wait(found)
