"""The connection to the control process, made again whenever it is lost. Requests go on meanwhile."""

import asyncio
import contextlib
from collections.abc import Callable
from itertools import count
from pathlib import Path

from garrison.base.errors import GarrisonError, InternalError, NotReadyError, all_errors
from garrison.base.logs import logger
from garrison.gateway.link import messages
from garrison.gateway.link.peer import Peer, worker_peer
from garrison.gateway.link.reports import Cancel, ListLive, SpentStored
from garrison.gateway.worker.exchange.exchange import Exchange
from garrison.gateway.worker.plane import Plane
from garrison.gateway.worker.reporting import Reporting
from garrison.gateway.worker.table.stored_responses import StoredAt
from garrison.gateway.worker.table.targets import Target

__all__ = ["Link"]

_AGAIN_SECONDS = 0.02
_QUIET_SECONDS = 0.05
"""Whether targets have become idle is looked at so often: one that is asked again and again causes few messages."""
_COUNTS_SECONDS = 1.0
_SYNC_SECONDS = 0.5
_ALONE_SECONDS = 3600.0
_MOST_SYNCING = 256
"""Requests that name something unknown and have the control process asked; more of them are refused at once."""

_log = logger(__name__)


class Link:
    """`ControlLink` of a plane.

    Args:
        path: the socket of the control process.
        hello: returns the first message.
        ordered: is called with what is meant for the worker as a whole.

    Attributes:
        reporting: what is reported about requests.
    """

    def __init__(
        self,
        plane: Plane,
        path: str,
        hello: Callable[[], messages.Hello],
        ordered: Callable[[messages.Settings | messages.Drain], None],
    ) -> None:
        self._plane, self._path, self._hello, self._ordered = plane, path, hello, ordered
        self._peer: Peer[messages.FromControl] | None = None
        self._lost = asyncio.Event()
        self._numbers = count(1)
        self._waiting: dict[int, Exchange] = {}
        self._loading: dict[int, Callable[[GarrisonError | None], None]] = {}
        self._syncing: dict[int, tuple[Callable[[], None], asyncio.TimerHandle]] = {}
        self._rested: set[Target] = set()
        """Those whose last request has ended since idle targets were last told."""
        self._told: dict[str, int] = {}
        self.reporting = Reporting(plane, self.send)

    async def run(self) -> None:
        """Connect again and again."""
        loop = asyncio.get_running_loop()
        tasks = asyncio.create_task(self._count()), asyncio.create_task(self.reporting.run())
        last = loop.time()
        try:
            while await self._may_go_on(loop.time() - last):
                self._lost.clear()
                with contextlib.suppress(OSError):
                    _, peer = await loop.create_unix_connection(
                        lambda: worker_peer(self._received, self._lost.set), self._path
                    )
                    self._peer = peer
                    self._told = {}
                    peer.send(self._hello())
                    self.reporting.connected()
                    await self._lost.wait()
                    self._peer = None
                    self.reporting.disconnected()
                    self._forget_all()
                    last = loop.time()
                await asyncio.sleep(_AGAIN_SECONDS)
            self._ordered(messages.Drain(seconds=0.0))
        finally:
            for task in tasks:
                task.cancel()

    async def _may_go_on(self, away: float) -> bool:
        """Without a control process a worker goes on, but not for ever, and not without the data directory."""
        busy = any(one.running for one in self._plane.table.targets.values())
        return busy or (away < _ALONE_SECONDS and await asyncio.to_thread(Path(self._path).parent.is_dir))

    def send(self, message: object) -> bool:
        """Send a message; False without a connection."""
        return self._peer is not None and self._peer.send(message)

    # --- ControlLink

    def activate(self, target: Target, exchange: Exchange, seconds: float | None) -> int:
        """As `ControlLink.activate`."""
        number = next(self._numbers)
        self._waiting[number] = exchange
        end, failed = exchange.cold
        route = exchange.route.name if end.adapter and exchange.route is not None else ""
        tried = tuple(one.id for one in failed) if route else ()
        if not self.send(messages.Activate(id=number, target=target.id, seconds=seconds, route=route, tried=tried)):
            # In a later step: the exchange learns its number first.
            asyncio.get_running_loop().call_soon(self._refuse, number, _no_control())
        return number

    def abandon(self, number: int) -> None:
        """As `ControlLink.abandon`."""
        if self._waiting.pop(number, None) is not None:
            self.send(messages.Abandon(id=number))

    def sync(self, then: Callable[[], None]) -> bool:
        """As `ControlLink.sync`."""
        if len(self._syncing) >= _MOST_SYNCING:
            return False
        number = next(self._numbers)
        if not self.send(messages.Sync(id=number)):
            return False
        timer = asyncio.get_running_loop().call_later(_SYNC_SECONDS, self._synced, number)
        self._syncing[number] = (then, timer)
        return True

    def _synced(self, number: int) -> None:
        if (found := self._syncing.pop(number, None)) is not None:
            then, timer = found
            timer.cancel()
            then()

    def load(
        self, target: str, *, load: bool, then: Callable[[GarrisonError | None], None], route: str = "", model: str = ""
    ) -> bool:
        """As `ControlLink.load`."""
        if len(self._loading) >= _MOST_SYNCING:
            return False
        number = next(self._numbers)
        self._loading[number] = then
        if not self.send(messages.Load(id=number, target=target, load=load, route=route, model=model)):
            del self._loading[number]
            return False
        return True

    def _loaded(self, number: int, error: GarrisonError | None) -> None:
        if (then := self._loading.pop(number, None)) is not None:
            then(error)

    def stored(self, id: str, at: StoredAt) -> None:
        """As `ControlLink.stored`."""
        self.send(messages.Stored(id=id, target=at.target, model=at.model))

    def busy(self, target: Target) -> None:
        """As `ControlLink.busy`."""
        if not target.told and target.value.counted:
            target.told = True
            self._tell({target.id: target.running})

    def idle(self, target: Target) -> None:
        """As `ControlLink.idle`."""
        if target.told:
            if not self._rested:
                asyncio.get_running_loop().call_later(_QUIET_SECONDS, self._tell_idle)
            self._rested.add(target)

    def left(self, number: int) -> None:
        """As `ControlLink.left`."""
        self.send(messages.Left(id=number))

    def _tell_idle(self) -> None:
        idle = [one for one in self._rested if not one.running]
        self._rested.clear()
        for one in idle:
            one.told = False
        if idle:
            self._tell({one.id: 0 for one in idle})

    def _tell(self, running: dict[str, int]) -> None:
        known = {one: number for one, number in running.items() if one in self._plane.table.targets}
        if known and self.send(messages.Counts(running=known)):
            self._told |= known

    async def _count(self) -> None:
        """Tell how many requests there are, for whoever looks."""
        while True:
            await asyncio.sleep(_COUNTS_SECONDS)
            running = {
                one.id: one.running for one in self._plane.table.targets.values() if one.running and one.value.counted
            }
            changed = {one: number for one, number in running.items() if self._told.get(one) != number}
            if changed and self.send(messages.Counts(running=changed)):
                self._told |= changed
            self._tell_in_use()

    def _tell_in_use(self) -> None:
        found = {}
        for one in self._plane.table.targets.values():
            if one.using or one.used:
                found[one.id] = sorted(one.used | one.using.keys())
                one.used.clear()
        if found:
            self.send(messages.InUse(models=found))

    # --- messages

    def _received(self, message: messages.FromControl) -> None:
        plane = self._plane
        match message:
            case messages.Tables():
                plane.apply(message)
            case messages.Activated():
                self._activated(message)
            case messages.Refused():
                self._loaded(message.id, _error(message))
                self._refuse(message.id, _error(message))
            case messages.Begun():
                self._loaded(message.id, None)
            case messages.Synced():
                self._synced(message.id)
            case messages.Loading():
                if (target := plane.table.targets.get(message.target)) is not None:
                    target.loading = message.loading
            case messages.Stored():
                plane.responses.remember(message.id, StoredAt(message.target, message.model))
            case messages.Close():
                target = plane.table.targets.get(message.target)
                if target is not None:
                    target.close()
                running = 0 if target is None else target.running
                self.send(messages.Closed(target=message.target, running=running))
            case messages.Leave():
                self._leave(message)
            case messages.Keys():
                plane.callers.set_keys(message)
            case messages.Settings() | messages.Drain():
                self._ordered(message)
            case SpentStored() | ListLive() | Cancel():
                self.reporting.received(message)

    def _activated(self, message: messages.Activated) -> None:
        exchange = self._waiting.pop(message.id, None)
        target = self._plane.table.targets.get(message.target.id)
        if exchange is None or target is None or (exchange.target is not target and not exchange.cold[0].adapter):
            self.send(messages.Abandon(id=message.id))
            if exchange is not None:
                exchange.refused(NotReadyError("the model was removed while the request waited for it"))
            return
        if target.value != message.target or not target.open:
            target.set(message.target)
        exchange.activated(target, message.wake)
        self.send(messages.Taken(id=message.id))

    def _leave(self, message: messages.Leave) -> None:
        target = self._plane.table.targets.get(message.target)
        if target is None or message.model not in target.using:
            self.left(message.id)
        else:
            target.awaited.setdefault(message.model, []).append(message.id)

    def _refuse(self, number: int, error: GarrisonError) -> None:
        if (exchange := self._waiting.pop(number, None)) is not None:
            exchange.refused(error)

    def _forget_all(self) -> None:
        """Refuse what waits for the control process, and forget its questions: the next one has its own numbers."""
        for target in self._plane.table.targets.values():
            target.awaited.clear()
        for number in list(self._waiting):
            self._refuse(number, _no_control())
        for number in list(self._loading):
            self._loaded(number, _no_control())
        for number in list(self._syncing):
            self._synced(number)


def _no_control() -> GarrisonError:
    return NotReadyError(
        "the model does not run, and the server that starts it does not answer", hint="Send the request again later.",
        details={"retry_after": 2},
    )  # fmt: skip


def _error(message: messages.Refused) -> GarrisonError:
    cls = next((one for one in all_errors() if one.code == message.code), InternalError)
    return cls(message.message, hint=message.hint, details=message.details)
