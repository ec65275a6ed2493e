"""Watches the files of applied adapters. Reads them, and sends nothing.

New weights at a path that was applied are reported, and only the next apply rolls them out. Entries of an adapter store
that must not be loaded from any more are reported and replaced.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from datetime import datetime

from garrison.base.errors import GarrisonError
from garrison.fleet.artifacts.protocol import EntryFault
from garrison.fleet.context import Fleet
from garrison.fleet.observe.entry_faults import Faults, entry_faults, words
from garrison.fleet.values import events
from garrison.fleet.values.declaration import Declaration
from garrison.store.records import Event, Resource

__all__ = ["ContentWatch", "changed_contents"]

_SECONDS = 30.0
"""Between two passes over the files."""


class ContentWatch:
    """Reads the adapters' files in passes that nothing waits for, since a disk may be slow, or hang.

    Args:
        found: called with events for what changed, once per content.
        faulty: called with paths in adapter stores that have a fault they did not have in the last pass.
        note: called with the reason when a pass failed.
        ended: called when a pass ended, with its task.

    Attributes:
        faults: the faults found by the last pass.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        found: Callable[[list[Event]], None],
        faulty: Callable[[Collection[str]], None],
        note: Callable[[str], None],
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self._fleet = fleet
        self._found = found
        self._faulty = faulty
        self.faults: Faults = {}
        self._note = note
        self._ended = ended
        self._reported: set[str] = set()
        self._due = fleet.clock.monotonic()
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a pass is in progress."""
        return self._task is not None and not self._task.done()

    def begin(self, declarations: Callable[[], list[Declaration]], applied: Callable[[], list[Resource]]) -> None:
        """Begin a pass over what is declared and applied, if one is due and none is in progress."""
        now = self._fleet.clock.monotonic()
        if self.busy or now < self._due:
            return
        self._due = now + _SECONDS
        self._task = asyncio.create_task(self._look(declarations(), applied()))
        self._task.add_done_callback(self._ended)

    async def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for a pass in progress; return whether none is left."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)
        return not self.busy

    async def close(self) -> None:
        """Cancel a pass in progress. A read that hangs is left behind."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _look(self, declarations: list[Declaration], applied: list[Resource]) -> None:
        try:
            found = await changed_contents(self._fleet, declarations)
            faults = await entry_faults(self._fleet, (one.served_path for one in applied))
        except GarrisonError as error:
            self._note(f"the adapters' files could not be read: {error.message}")
            return
        found += _spoiled(applied, faults, self._fleet.clock.now())
        fresh = [one for one in found if _content(one) not in self._reported]
        self._reported |= {_content(one) for one in fresh}
        if fresh:
            self._found(fresh)
        new, self.faults = faults.keys() - self.faults.keys(), faults
        if new:
            self._faulty(new)


async def changed_contents(fleet: Fleet, declarations: Iterable[Declaration]) -> list[Event]:
    """Return an event for each declared adapter whose content differs from what was applied.

    A path that can no longer be read says nothing about the content.
    """
    now = fleet.clock.now()
    digests: dict[str, str | None] = {}
    found = []
    for declaration in declarations:
        for spec in declaration.adapters:
            if spec.digest is None:
                continue
            if spec.lora_path not in digests:
                digests[spec.lora_path] = await fleet.disk(fleet.artifacts.digest, spec.lora_path)
            digest = digests[spec.lora_path]
            if digest is None or digest == spec.digest:
                continue
            found.append(
                Event(
                    at=now,
                    kind=events.CHANGED,
                    stack=declaration.stack,
                    target=spec.target,
                    name=spec.lora_name,
                    cause="content",
                    before={"lora_path": spec.lora_path, "digest": spec.digest},
                    after={"lora_path": spec.lora_path, "digest": digest},
                )
            )
    return found


def _spoiled(applied: Iterable[Resource], faults: Faults, now: datetime) -> list[Event]:
    """Return an event for each adapter whose files are no longer those that were applied."""
    return [
        Event(
            at=now,
            kind=events.DRIFT,
            stack=one.stack,
            target=one.key.target,
            name=one.key.name,
            cause="content",
            before={"served_path": one.served_path, "parent": one.parent},
            after={"served_path": one.served_path, "detail": words(one.served_path, fault)},
        )
        for one in applied
        if one.operation.serves and (fault := faults.get(one.served_path)) not in (None, EntryFault.SHARED)
    ]


def _content(event: Event) -> str:
    return f"{event.stack} {event.target} {event.name} {event.after}"
