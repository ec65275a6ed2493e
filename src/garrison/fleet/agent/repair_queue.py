"""The agent's hands: stacks are mended side by side, and one slow target of a stack does not keep the others waiting.

A stack has one session at a time. It holds the lease, and mends batch after batch of targets until none is left; some
batches run at once, so that a load that takes minutes on one target delays no other.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice

from garrison.base.bugs import bug_of
from garrison.base.errors import GarrisonError
from garrison.fleet.context import Fleet
from garrison.fleet.execute.lease import hold
from garrison.fleet.operations.repair import Mended, mend
from garrison.fleet.values.view import FleetView
from garrison.store.records import Key

__all__ = ["Mender"]

_BATCHES = 8
"""Of one stack, at once."""
_TARGETS = 32
"""Of one batch. What is planned and recorded before anything is done, and given up when the agent stops, is bounded."""

Done = Callable[[str, Mended | GarrisonError | None], None]
"""(stack, how a batch ended; None when the stack is gone)"""
Bug = Callable[[str, BaseException], None]
"""(stack, what ended its session and should not have)"""


@dataclass(slots=True)
class _Session:
    wanted: dict[str | None, Collection[Key]] = field(default_factory=dict)
    """Targets that wait for their turn, with what failed for good on them."""
    busy: set[str | None] = field(default_factory=set)
    batches: int = 0
    running: set[str] = field(default_factory=set)
    """Commands under way."""
    change: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Mender:
    """Call `want`; `done` is told how each batch ended, `bug` what nobody expected.

    Args:
        told: drift that has been told, see `duties`; read when a batch begins.
    """

    def __init__(self, fleet: Fleet, view: FleetView, told: Mapping[Key, str | None], done: Done, bug: Bug) -> None:
        self._fleet = fleet
        self._view = view
        self._told = told
        self._done = done
        self._bug = bug
        self._sessions: dict[str, _Session] = {}
        self._closing = False

    @property
    def busy(self) -> bool:
        """Whether anything is wanted or under way."""
        return any(one.task is not None for one in self._sessions.values())

    def works_on(self, stack: str) -> bool:
        session = self._sessions.get(stack)
        return session is not None and session.task is not None

    def want(self, stack: str, target: str | None, *, hopeless: Collection[Key] = ()) -> None:
        """Have `target` mended for `stack`. One that is being mended now is looked at again by the agent afterwards.
        None: nothing but the end of killed commands, which needs no look at a target."""
        session = self._sessions.setdefault(stack, _Session())
        if self._closing or target in session.busy:
            return
        session.wanted[target] = hopeless
        session.change.set()
        if session.task is None:
            self._start(stack, session)

    def stop(self) -> None:
        """Begin no further action. What batches under way have not begun is left for later."""
        self._closing = True

    async def close(self, seconds: float) -> None:
        """Begin nothing more, give what is under way `seconds`, then end it."""
        self.stop()
        tasks = {one.task for one in self._sessions.values() if one.task is not None}
        for one in self._sessions.values():
            one.wanted.clear()
            one.change.set()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _start(self, stack: str, session: _Session) -> None:
        session.task = asyncio.create_task(self._run(stack, session))

        def ended(task: asyncio.Task[None]) -> None:
            session.task = None
            if (error := bug_of(task)) is not None:
                session.wanted.clear()  # the next looks ask again
                self._bug(stack, error)
            if session.wanted and not self._closing:
                self._start(stack, session)

        session.task.add_done_callback(ended)

    async def _run(self, stack: str, session: _Session) -> None:
        try:
            async with hold(self._fleet, stack, "agent"), asyncio.TaskGroup() as group:
                while session.wanted or session.busy:
                    if session.wanted and session.batches < _BATCHES:
                        batch = dict(islice(session.wanted.items(), _TARGETS))
                        for target in batch:
                            del session.wanted[target]
                        session.busy |= batch.keys()
                        session.batches += 1
                        group.create_task(self._batch(stack, session, batch))
                    session.change.clear()
                    await session.change.wait()
        except GarrisonError as error:
            session.wanted.clear()
            self._done(stack, error)

    async def _batch(self, stack: str, session: _Session, batch: dict[str | None, Collection[Key]]) -> None:
        result: Mended | GarrisonError | None
        try:
            result = await mend(
                self._fleet,
                stack,
                self._view,
                only={target for target in batch if target is not None},
                hopeless={key for keys in batch.values() for key in keys},
                told=self._told,
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
