"""Reports to the control process, once a second: sums for metrics, sums to store, and requests that have ended."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from garrison.base.logs import logger
from garrison.gateway.choose.breaker import ALWAYS
from garrison.gateway.link.reports import (
    Cancel,
    Cancelled,
    Captured,
    Finished,
    ListLive,
    LiveRequests,
    SpentStored,
    Used,
)
from garrison.gateway.worker.accounts.finished import finished_value
from garrison.gateway.worker.accounts.ledger import Ledger
from garrison.gateway.worker.live import cancel, in_progress, live_requests

if TYPE_CHECKING:
    from garrison.gateway.worker.plane import Plane

__all__ = ["Reporting"]

_log = logger(__name__)

_SECONDS = 1.0
_AT_ONCE = 200
"""Requests that are reported in one step of the event loop."""


class Reporting:
    """The reports of one worker.

    Args:
        send: sends a message; False without a connection.
    """

    def __init__(self, plane: "Plane", send: Callable[[object], bool]) -> None:
        self._plane, self._send = plane, send
        self._ledger = Ledger(plane.name.decode())
        self._open = False
        self._said: Used | None = None
        self._stored = asyncio.Event()

    async def run(self) -> None:
        """Report again and again. Without a connection everything is kept, within the bounds of what keeps it."""
        while True:
            await asyncio.sleep(_SECONDS)
            await self._report_or_log()

    async def _report_or_log(self) -> None:
        try:
            await self.report()
        except Exception as error:  # noqa: BLE001 - one report that fails must not be the last one
            _log.error("a report to the server failed", error=repr(error))

    def connected(self) -> None:
        """There is a control process, perhaps another one, which may not know what the one before has stored."""
        self._open, self._said = True, None
        if (batch := self._ledger.unstored()) is not None:
            self._send(batch)

    def disconnected(self) -> None:
        """It is gone."""
        self._open = False

    async def report(self) -> None:
        """Report everything there is."""
        if not self._open:
            return
        self._report_sums()
        accounts, lost = self._plane.finished.take()
        if lost and self._send(Finished(requests=[], lost=lost)):
            lost = 0
        for one in self._plane.finished.take_captures():
            self._send(Captured(capture=one))
        offset = self._offset()
        for at in range(0, len(accounts), _AT_ONCE):
            if lost or not self._send(
                Finished(requests=[finished_value(one, offset) for one in accounts[at : at + _AT_ONCE]])
            ):
                self._plane.finished.give_back(accounts[at:], lost)
                return
            await asyncio.sleep(0)
        if lost:
            self._plane.finished.give_back([], lost)

    async def finish(self, seconds: float) -> None:
        """Report the last requests, and wait until they are on disk, at most so long."""
        deadline = self._plane.now() + seconds
        if (batch := self._ledger.end()) is not None:
            self._send(batch)  # again: the control process gathers others for longer than this process lasts
        await self._report_or_log()
        while not self._ledger.is_empty and (left := deadline - self._plane.now()) > 0:
            self._stored.clear()
            self._send_next()
            try:
                async with asyncio.timeout(left):
                    await self._stored.wait()
            except TimeoutError:
                return

    def received(self, message: SpentStored | ListLive | Cancel) -> None:
        """Do what the control process asks for."""
        match message:
            case SpentStored():
                self._ledger.stored(message.number)
                self._stored.set()
            case ListLive():
                found, more = live_requests(self._plane, message.most, self._offset())
                self._send(LiveRequests(id=message.id, requests=found, more=more))
            case Cancel():
                self._send(Cancelled(id=message.id, found=cancel(self._plane, message.request)))

    def _report_sums(self) -> None:
        plane = self._plane
        now = plane.now()
        uses = plane.stats.take()
        self._ledger.add(uses)  # first: whatever fails below, it is stored
        targets = plane.table.targets.values()
        breakers = {one.id: str(one.breaker.state(now)) for one in targets if one.breaker.passes_from != ALWAYS}
        said = Used(uses=[], in_progress=in_progress(plane), breakers=breakers)
        if uses or said != self._said:
            self._send(Used(uses=uses, in_progress=said.in_progress, breakers=breakers))
            self._said = said
        self._send_next()

    def _send_next(self) -> None:
        if (batch := self._ledger.next()) is not None:
            self._send(batch)

    def _offset(self) -> float:
        """What has to be added to the loop's time for Unix time."""
        return time.time() - self._plane.now()
