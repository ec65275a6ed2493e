"""Writes the results of many actions in few transactions.

A commit waits for the disk. Results that arrive while a commit is in progress are written together by the next one.
Each caller waits until its own result is on disk.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from garrison.base.errors import InternalError
from garrison.fleet.context import Fleet
from garrison.store.records import ActionResult

__all__ = ["GroupCommit"]


class _Entry(NamedTuple):
    """The results of one caller, and the future it waits for."""

    results: Sequence[ActionResult]
    saved: "asyncio.Future[None]"


class GroupCommit:
    """The commits of one run. Belongs to one event loop."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._waiting: list[_Entry] = []
        self._task: asyncio.Task[None] | None = None

    async def save(self, *results: ActionResult) -> None:
        """Write the results in one transaction; return when they are on disk.

        They are written even if the caller is cancelled meanwhile.

        Raises:
            GarrisonError: the store failed, and none of them is written.
        """
        entry = _Entry(results, asyncio.get_running_loop().create_future())
        entry.saved.add_done_callback(_heard)
        self._waiting.append(entry)
        if self._task is None:
            self._task = asyncio.create_task(self._write())
        await entry.saved

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._commit(batch)
            except InternalError:  # a row was refused: find the caller it belongs to, and write the others
                for entry in batch:
                    await self._commit_alone(entry)
            except BaseException as error:  # noqa: BLE001 - each caller raises it
                for entry in batch:
                    _fail(entry, error)
        self._task = None

    async def _commit(self, batch: Sequence[_Entry]) -> None:
        await self._fleet.db(self._fleet.store.save_actions, [one for entry in batch for one in entry.results])
        for entry in batch:
            if not entry.saved.done():
                entry.saved.set_result(None)

    async def _commit_alone(self, entry: _Entry) -> None:
        try:
            await self._commit([entry])
        except BaseException as error:  # noqa: BLE001 - its caller raises it
            _fail(entry, error)


def _fail(entry: _Entry, error: BaseException) -> None:
    if not entry.saved.done():
        entry.saved.set_exception(error)


def _heard(saved: "asyncio.Future[None]") -> None:
    """Retrieve the error; its caller may have been cancelled, and asyncio would report it."""
    if not saved.cancelled():
        saved.exception()
