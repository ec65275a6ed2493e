"""Queues targets for repair: stacks are repaired side by side, and a slow target of a stack does not delay its others.

Each stack has at most one session. It holds the stack's lease and repairs batches of targets until none is left.
Several batches run at once, so that a load that takes minutes on one target does not delay the rest.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice

from garrison.base.bugs import bug_of
from garrison.base.errors import GarrisonError
from garrison.fleet.context import Fleet
from garrison.fleet.execute.lease import hold
from garrison.fleet.operations.repair import Repaired, repair
from garrison.fleet.values.view import FleetView
from garrison.store.records import Key

__all__ = ["RepairQueue"]

_BATCHES = 8
"""Maximum number of batches of one stack at once."""
_TARGETS = 32
"""Maximum number of targets in a batch; bounds what is planned and recorded before anything is done, and what is given
up when the agent stops."""
_CANCEL_SECONDS = 2.0
"""Deadline for cancelled sessions: one whose store hangs is left behind."""

Done = Callable[[str, Repaired | GarrisonError | None], None]
"""Called with the stack and how a batch ended; None if the stack no longer exists."""
Bug = Callable[[str, BaseException], None]
"""Called with the stack and the unexpected error that ended its session."""


@dataclass(slots=True)
class _Session:
    """The repairs of one stack.

    Attributes:
        waiting: targets that are not in a batch yet, with the adapters to leave alone on each.
        busy: targets in a batch.
        batches: number of batches in progress.
        running: ids of commands in progress.
        change: set when there may be something for the session's task to do.
    """

    waiting: dict[str | None, Collection[Key]] = field(default_factory=dict)
    busy: set[str | None] = field(default_factory=set)
    batches: int = 0
    running: set[str] = field(default_factory=set)
    change: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class RepairQueue:
    """The sessions of all stacks.

    Args:
        reported: drift that was reported already, see `agent_work`; read when a batch begins.
        done: called when a batch ended.
        bug: called with an unexpected error.
    """

    def __init__(self, fleet: Fleet, view: FleetView, reported: Mapping[Key, str | None], done: Done, bug: Bug) -> None:
        self._fleet = fleet
        self._view = view
        self._reported = reported
        self._done = done
        self._bug = bug
        self._sessions: dict[str, _Session] = {}
        self._closing = False

    @property
    def busy(self) -> bool:
        """Whether any target waits or is being repaired."""
        return any(one.task is not None for one in self._sessions.values())

    def works_on(self, stack: str) -> bool:
        """Return whether the stack has a session."""
        session = self._sessions.get(stack)
        return session is not None and session.task is not None

    def request(self, stack: str, target: str | None, *, hopeless: Collection[Key] = ()) -> None:
        """Queue `target` for repair on behalf of `stack`.

        A target that is being repaired is not queued again, since the agent looks at it afterwards.

        Args:
            target: None only has killed commands of the stack settled, which needs no look at a target.
            hopeless: adapters to leave alone.
        """
        session = self._sessions.setdefault(stack, _Session())
        if self._closing or target in session.busy:
            return
        session.waiting[target] = hopeless
        session.change.set()
        if session.task is None:
            self._start(stack, session)

    def stop(self) -> None:
        """Begin no further action; what batches in progress have not begun stays owed."""
        self._closing = True

    async def close(self, seconds: float) -> None:
        """Allow `seconds` for actions in progress, then cancel them."""
        self.stop()
        tasks = {one.task for one in self._sessions.values() if one.task is not None}
        for one in self._sessions.values():
            one.waiting.clear()
            one.change.set()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_CANCEL_SECONDS)

    def _start(self, stack: str, session: _Session) -> None:
        session.task = asyncio.create_task(self._run(stack, session))

        def ended(task: asyncio.Task[None]) -> None:
            session.task = None
            if (error := bug_of(task)) is not None:
                session.waiting.clear()  # the next looks request them again
                self._bug(stack, error)
            if session.waiting and not self._closing:
                self._start(stack, session)

        session.task.add_done_callback(ended)

    async def _run(self, stack: str, session: _Session) -> None:
        try:
            async with hold(self._fleet, stack, "agent"), asyncio.TaskGroup() as group:
                while session.waiting or session.busy:
                    while session.waiting and session.batches < _BATCHES:
                        batch = dict(islice(session.waiting.items(), _TARGETS))
                        for target in batch:
                            del session.waiting[target]
                        session.busy |= batch.keys()
                        session.batches += 1
                        group.create_task(self._batch(stack, session, batch))
                    session.change.clear()
                    await session.change.wait()
        except GarrisonError as error:
            session.waiting.clear()
            self._done(stack, error)

    async def _batch(self, stack: str, session: _Session, batch: dict[str | None, Collection[Key]]) -> None:
        result: Repaired | GarrisonError | None
        try:
            result = await repair(
                self._fleet,
                stack,
                self._view,
                only={target for target in batch if target is not None},
                hopeless={key for keys in batch.values() for key in keys},
                told=self._reported,
                running=session.running,
                stopping=lambda: self._closing,
            )
        except GarrisonError as error:
            result = error
        finally:
            session.busy -= batch.keys()
            session.batches -= 1
            session.change.set()
        self._done(stack, result)
