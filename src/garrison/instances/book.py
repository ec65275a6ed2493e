"""All instances of this machine while the server runs, and their steps from state to state."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace

from garrison.base.clock import Clock
from garrison.base.errors import NotFoundError
from garrison.base.events import EventBus
from garrison.base.logs import logger
from garrison.instances.live import Door, Live
from garrison.instances.values.record import InstanceRecord
from garrison.instances.values.state import Condition, State
from garrison.instances.writer import Writer
from garrison.store.records import Event

__all__ = ["Book", "instance_event"]

_log = logger(__name__)


class Book:
    """The instances by name. Belongs to one event loop.

    Attributes:
        bus: every event of an instance.
        doors: let requests through to engines by themselves.
    """

    def __init__(self, writer: Writer, clock: Clock, bus: EventBus[Event]) -> None:
        self.bus = bus
        self.writer = writer
        self.clock = clock
        self.doors: list[Door] = []
        self._all: dict[str, Live] = {}
        self._changed = asyncio.Event()

    def __iter__(self) -> Iterator[Live]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def find(self, name: str) -> Live | None:
        return self._all.get(name)

    def get(self, name: str) -> Live:
        """Return the instance.

        Raises:
            NotFoundError: there is none of that name.
        """
        found = self._all.get(name)
        if found is None:
            raise NotFoundError(
                f"there is no instance {name!r}",
                hint="`garrison instance list` shows those that exist.",
                details={"instance": name},
            )
        return found

    def add(self, record: InstanceRecord) -> Live:
        live = self._all[record.spec.name] = Live(record, doors=self.doors)
        return live

    def put_back(self, live: Live) -> None:
        """It is not removed after all."""
        self._all[live.name] = live
        self.tell()

    def remove(self, live: Live) -> None:
        self._all.pop(live.name, None)
        self.tell()

    def move(self, live: Live, state: State, reason: str = "", *, cause: str | None = None) -> None:
        """Take an instance to another state: the record, the store and the bus hear of it.

        Args:
            cause: the code of an error.
        """
        before = live.record.condition
        if before.state is not state and not before.state.may_become(state):
            raise AssertionError(f"{live.name} cannot become {state} from {before.state}")
        if (before.state, before.reason) == (state, reason):
            return
        now = self.clock.now()
        since = before.since if before.state is state else now
        live.record = replace(live.record, condition=Condition(state, since, reason), updated=now)
        _log.info("instance", name=live.name, state=str(state), before=str(before.state), reason=reason)
        told = Event(
            at=now,
            kind=f"instance_{state}",
            stack=live.spec.stack,
            cause=cause,
            before={"state": str(before.state), "reason": before.reason},
            after={"state": str(state), "reason": reason},
            subject_kind="instance",
            subject_name=live.name,
        )
        self.writer.put(live.record, told)
        self.bus.publish(told)
        self.tell()

    def note(self, live: Live, **changes: object) -> None:
        """Change fields of the record that are no step."""
        live.record = replace(live.record, updated=self.clock.now(), **changes)  # type: ignore[arg-type]  # by name
        self.writer.put(live.record)

    def tell(self) -> None:
        """Something changed that somebody may wait for."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, seconds: float | None) -> None:
        """Wait for the next change, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            # Not `wait_for`, which in Python 3.11 loses a cancellation that comes together with the event.
            async with asyncio.timeout(seconds):
                await self._changed.wait()


def instance_event(kind: str, record: InstanceRecord, **fields: object) -> Event:
    """An event about an instance that is no step: created, changed, deleted."""
    return Event(
        at=record.updated,
        kind=f"instance_{kind}",
        stack=record.spec.stack,
        subject_kind="instance",
        subject_name=record.spec.name,
        **fields,  # type: ignore[arg-type]  # by name
    )
