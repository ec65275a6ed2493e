"""One worker: a door of the instance manager, and the requests that wait for a cold instance through it."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

from garrison.base.errors import ConflictError, GarrisonError, InternalError, NotFoundError, NotReadyError
from garrison.base.identity import ProcessId
from garrison.base.logs import logger
from garrison.fleet.values.demand import Place
from garrison.gateway.link import messages
from garrison.gateway.link.messages import TargetValue
from garrison.gateway.link.peer import Peer, control_peer
from garrison.gateway.link.reports import Cancelled, Captured, Finished, LiveRequests, Spent, SpentStored, Used
from garrison.instances.live import Lease, Live
from garrison.instances.manager import InstanceManager
from garrison.instances.routers import Routers
from garrison.server.adapters.loads import AdapterLoads
from garrison.server.adapters.routes import ends_to_load
from garrison.server.workers.routes import Known, changes, instance_target, name_of, node_of, target_id

__all__ = ["Report", "WorkerDoor"]

Report = Used | Spent | Finished | Captured | LiveRequests | Cancelled
"""What a worker says about requests."""

_REPORT_SECONDS = 1.0

_log = logger(__name__)


class WorkerDoor:
    """`Door` through one worker.

    Args:
        routers: loads and unloads their models.
        known: returns what there is now.
        fresh: returns when that is as of now.
        node: returns a node as a target. Raises UnreachableError for one that did not answer the last time.
        adapters: where requests wait for an adapter.
        greeted: is called with its first message.
        told: is called with what it says about itself: that it listens, or why not, and what it has carried.
        lost: is called when its connection has ended.

    Attributes:
        process: who it is; None until it has said so.
        version: of the package that it runs.
        leaves: it was told to finish and end.
    """

    def __init__(
        self,
        instances: InstanceManager,
        routers: Routers,
        known: Callable[[], Known],
        fresh: Callable[[], Awaitable[None]],
        node: Callable[[str], TargetValue],
        adapters: AdapterLoads,
        greeted: Callable[["WorkerDoor", messages.Hello], None],
        told: Callable[["WorkerDoor", messages.Listening | messages.Failed | messages.Stored | Report], None],
        lost: Callable[["WorkerDoor"], None],
    ) -> None:
        self._instances = instances
        self._routers = routers
        self._now_known = known
        self._fresh = fresh
        self._node = node
        self._adapters = adapters
        self._greeted, self._told, self._lost = greeted, told, lost
        self._known = Known()
        self._version = 0
        self._open = False
        self._starting: dict[int, asyncio.Task[None]] = {}
        self._waited_for: Counter[str] = Counter()
        self._reports: asyncio.Task[None] | None = None
        self._leases: dict[int, Lease] = {}
        self._asked_left: dict[int, asyncio.Future[bool]] = {}
        self._numbers = count(1)
        self.process: ProcessId | None = None
        self.version = ""
        self.address = ""
        self.leaves = False
        self.peer: Peer[messages.FromWorker] = control_peer(self._received, self._gone)

    def begin(self, settings: messages.Settings, keys: messages.Keys, found: Known) -> None:
        """Tell it everything, and let it open."""
        self.peer.send(settings)
        self.peer.send(keys)
        self._version += 1
        self._known = found
        self.peer.send(
            messages.Tables(
                version=self._version, whole=True, targets=list(found.targets.values()),
                routes=list(found.routes.values()),
            )
        )  # fmt: skip
        self._open = True
        self._instances.add_door(self)

    def update(self, found: Known) -> None:
        """Tell it what has changed."""
        told = changes(self._known, found, self._version + 1)
        if self._open and told is not None:
            self._version += 1
            self._known = found
            self.peer.send(told)

    def send(self, message: messages.FromControl) -> bool:
        """Tell it something; False if it is gone."""
        return self.peer.send(message)

    def stored(self, number: int) -> None:
        """Tell it that a batch of what was used is on disk."""
        self.peer.send(SpentStored(number=number))

    def leave(self, seconds: float) -> None:
        """Have the worker finish what is in progress within `seconds`, and end."""
        self.leaves = True
        self.peer.send(messages.Drain(seconds=seconds))

    # --- as Door

    def opened(self, live: Live) -> None:
        """As `Door.opened`."""
        value = instance_target(live)
        self._known = replace(self._known, targets={**self._known.targets, value.id: value})
        self._version += 1
        self.peer.send(messages.Tables(version=self._version, targets=[value]))

    def close(self, live: Live) -> bool:
        """As `Door.close`."""
        return self.peer.send(messages.Close(target=target_id(live)))

    # --- messages

    def _received(self, message: messages.FromWorker) -> None:
        match message:
            case messages.Hello():
                self.process, self.version = ProcessId(message.pid, message.start), message.version
                self._greeted(self, message)
                self._count(message.running)
            case messages.Counts():
                self._count(message.running)
            case messages.Closed():
                if (live := self._live(message.target)) is not None:
                    live.closed(self, message.running)
                    self._instances.told()
            case messages.Sync():
                self._starting[message.id] = asyncio.create_task(self._sync(message.id), name="sync")
            case messages.Activate():
                self._starting[message.id] = asyncio.create_task(
                    self._answered(message.id, self._activate(message)), name="activate"
                )
            case messages.Load():
                self._starting[message.id] = asyncio.create_task(
                    self._answered(message.id, self._load(message)), name="load"
                )
            case messages.Abandon():
                self._forget(message.id)
            case messages.Left():
                self._answer_left(message.id, True)
            case messages.InUse():
                self._adapters.in_use(message.models)
            case messages.Taken():
                if (lease := self._leases.pop(message.id, None)) is not None:
                    lease.release()
            case _:
                self._told(self, message)

    def _live(self, target: str) -> Live | None:
        name = name_of(target)
        return None if name is None else self._instances.find(name)

    def _count(self, running: dict[str, int]) -> None:
        for target, number in running.items():
            if (live := self._live(target)) is not None:
                live.count(self, number)
        self._instances.told()

    async def left(self, target: str, model: str) -> bool:
        """Return when no request to a target that asks for `model` is in progress. False: the worker is gone, and may
        still have some.

        What it was told before counts: a request that comes later goes where that says.
        """
        number = next(self._numbers)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked_left[number] = answer
        if self.leaves or not self.peer.send(messages.Leave(id=number, target=target, model=model)):
            self._answer_left(number, False)
        try:
            return await answer
        finally:
            self._asked_left.pop(number, None)

    def _answer_left(self, number: int, left: bool) -> None:
        if (answer := self._asked_left.pop(number, None)) is not None and not answer.done():
            answer.set_result(left)

    async def _answered(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        """Have a question answered whatever happens: a request waits for that."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the outermost frame of a question
            _log.error("a question of a worker was not answered", exception=error)
            self._refuse(number, InternalError("the server has failed", hint="Its log has more."))

    async def _activate(self, asked: messages.Activate) -> None:
        if asked.route:
            await self._activate_adapter(asked)
            return
        began = asyncio.get_running_loop().time()
        try:
            if (node := node_of(asked.target)) is not None:
                self.peer.send(messages.Activated(id=asked.id, target=self._node(node)))
                return
            name = name_of(asked.target)
            if name is None:
                raise self._why_cold(asked.target)
            with self._reported(name):
                lease = await self._instances.acquire(name, timeout=asked.seconds)
                while not self._instances.get(name).admits:  # a command stops it already, and starts it again for us
                    lease.release()
                    lease = await self._instances.acquire(name, timeout=asked.seconds)
        except GarrisonError as error:
            self._refuse(asked.id, error)
            return
        finally:
            self._starting.pop(asked.id, None)
        self._leases[asked.id] = lease
        # In the step that took the lease: the target cannot have left since.
        live = self._instances.get(name)
        wake = max(0.0, live.ready_at - max(began, live.began_at))  # the rest of the time it waited for room
        if not self.peer.send(messages.Activated(id=asked.id, target=instance_target(live), wake=wake)):
            self._forget(asked.id)

    @contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        """While a request waits for an instance, tell where its start is."""
        self._waited_for[name] += 1
        if self._reports is None or self._reports.done():
            self._reports = asyncio.create_task(self._report(), name="report starts")
        try:
            yield
        finally:
            self._waited_for[name] -= 1

    async def _report(self) -> None:
        while waited_for := +self._waited_for:
            self._waited_for = waited_for
            for name in waited_for:
                if (live := self._instances.find(name)) is not None and not live.admits:
                    loading = _plain(self._instances.loading(live))
                    self.peer.send(messages.Loading(target=target_id(live), loading=loading))
            await asyncio.sleep(_REPORT_SECONDS)

    async def _activate_adapter(self, asked: messages.Activate) -> None:
        lease = None
        try:
            target, lease = await self._adapters.ready(self._ends(asked))
            found = self._now_known()
            value = found.targets.get(target)
            if value is None or value.url is None:
                raise self._why_cold(target)
        except GarrisonError as error:
            if lease is not None:
                lease.release()
            self._refuse(asked.id, error)
            return
        finally:
            self._starting.pop(asked.id, None)
        if lease is not None:
            self._leases[asked.id] = lease
        self.update(found)  # before the answer: it tells what the adapter is called there
        if not self.peer.send(messages.Activated(id=asked.id, target=value)):
            self._forget(asked.id)

    def _ends(self, asked: messages.Activate | messages.Load) -> Sequence[Place]:
        found = self._now_known()
        route = found.routes.get(asked.route)
        if route is None:
            raise NotFoundError(f"there is no model {asked.route!r} any more")
        tried = asked.tried if isinstance(asked, messages.Activate) else ()
        return ends_to_load(route, found.ends.get(route.name, ()), asked.target, tried)

    async def _load(self, asked: messages.Load) -> None:
        name = name_of(asked.target)
        try:
            if asked.route and not asked.load:
                raise ConflictError(
                    f"{asked.route} is not unloaded by a request", hint="It is when it is no longer declared.",
                )  # fmt: skip
            if asked.route:
                self._adapters.begin(self._ends(asked))
            elif name is None:
                raise NotFoundError(f"{asked.target} is not started here")
            elif asked.load:
                await self._instances.start(name)
                if asked.model:
                    await self._routers.load(name, asked.model)
            elif asked.model:
                await self._routers.unload(name, asked.model)
            else:
                await self._instances.eject(name)
        except GarrisonError as error:
            self._refuse(asked.id, error)
        else:
            self.peer.send(messages.Begun(id=asked.id))
        finally:
            self._starting.pop(asked.id, None)

    def _refuse(self, number: int, error: GarrisonError) -> None:
        self.peer.send(
            messages.Refused(
                id=number, code=error.code, message=error.message, hint=error.hint, details=_plain(error.details)
            )
        )

    async def _sync(self, number: int) -> None:
        try:
            await self._fresh()
        finally:
            self._starting.pop(number, None)
        self.update(self._now_known())
        self.peer.send(messages.Synced(id=number))

    def _why_cold(self, target: str) -> GarrisonError:
        """Why a target that nobody here starts cannot be had."""
        found = self._now_known()
        if target not in found.targets:
            return NotFoundError(f"nothing here is {target}")
        reason = found.reasons.get(target, "it is being opened")
        return NotReadyError(f"{target} cannot be asked: {reason}", details={"retry_after": 5})

    def _forget(self, number: int) -> None:
        if (task := self._starting.pop(number, None)) is not None:
            task.cancel()
        if (lease := self._leases.pop(number, None)) is not None:
            lease.release()

    def _gone(self) -> None:
        for number in (*self._starting, *self._leases):
            self._forget(number)
        if self._reports is not None:
            self._reports.cancel()
        for number in tuple(self._asked_left):
            self._answer_left(number, False)
        if self._open:
            self._open = False
            self._instances.remove_door(self)
        self._lost(self)


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(details, default=str))
    return found
