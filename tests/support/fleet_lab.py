"""A fleet in memory with processes that can be killed: whoever works on it does so through a `Process`, and a dead one
reaches neither the store nor a server any more. Everything that goes through is checked against what may never happen.

The rules checked here are the requirement's, and use nothing of the code that decides.
"""

import asyncio
import contextlib
import contextvars
import random
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from garrison.fleet.adapter_traffic import AdapterTraffic, NoGateway
from garrison.fleet.context import Fleet
from garrison.fleet.values import events
from garrison.fleet.values.declaration import AdapterDeclaration
from garrison.fleet.values.target import NO_STORE, TargetSpec
from garrison.net.transport import Answer, Connection, TransportError
from garrison.store.records import ActionState, CommandState, Operation, Resource
from garrison.testing.artifacts import MemoryArtifacts
from garrison.testing.store import MemoryStore
from garrison.testing.targets import MemoryTarget, MemoryTargets, json_answer
from garrison.testing.virtual_loop import LoopClock, VirtualLoop

BASE = "acme/tiny"
STORE = "/store"
GARRISON, OTHERS = "garrison", "others"

_CURRENT: "contextvars.ContextVar[Process | None]" = contextvars.ContextVar("process", default=None)
_WRITES = {
    "drop_stack", "respecify", "sight", "forget", "tidied", "drop_targets", "begin", "finish", "renew", "release",
}  # fmt: skip

Place = tuple[str, str]
"""(target, adapter name)"""


class KilledError(BaseException):
    """Stands for SIGKILL: no handler of Garrison sees it."""


class Lab:
    """Servers by name; those in `without_store` have no adapter store.

    Attributes:
        loaded_by: who loaded what is served now: `GARRISON` or `OTHERS`.
        tampered: what others did something to since Garrison last loaded it, or took it over.
        neglected: the same, since it was last declared.
    """

    def __init__(self, targets: tuple[str, ...], without_store: tuple[str, ...] = ()) -> None:
        self.loop = VirtualLoop()
        self.clock = LoopClock(self.loop)
        self.store = MemoryStore()
        self.artifacts = MemoryArtifacts()
        self.targets = MemoryTargets({name: MemoryTarget(base=BASE) for name in targets})
        self.without_store = without_store
        self.loaded_by: dict[Place, str] = {}
        self.tampered: set[Place] = set()
        self.neglected: set[Place] = set()
        self.alive: set[int] = set()
        self.odd: list[str] = []
        self._pids = 0
        self.loop.set_task_factory(_task)
        self.loop.set_exception_handler(self._unhandled)

    def spec(self, name: str) -> TargetSpec:
        store = NO_STORE if name in self.without_store else STORE
        return TargetSpec(name=name, base_url=f"http://{name}:8000", adapter_store=store)

    def process(
        self,
        stack: str | None = None,
        *,
        force: bool = False,
        adopt: bool = False,
        traffic: AdapterTraffic | None = None,
    ) -> "Process":
        """A new one. `stack`: the only one it works for; `traffic`: its gateway."""
        self._pids += 1
        self.alive.add(self._pids)
        return Process(self, self._pids, stack, force=force, adopt=adopt, traffic=traffic or NoGateway())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Until `work` has ended; whatever else is under way goes on beside it."""
        result = self.turn(work)
        self.check()
        return result

    def turn(self, work: Coroutine[Any, Any, Any]) -> Any:
        """`run` without the check. What is replaced for the loop is so for this time only: other tests have threads."""
        with (
            mock.patch("garrison.base.identity.start_time", self._start_time),
            mock.patch("asyncio.to_thread", _at_once),
        ):
            return self.loop.run_until_complete(work)

    def served(self, place: Place) -> str | None:
        return self.targets[place[0]].served.get(place[1])

    def owners(self) -> dict[Place, Resource]:
        return {(one.key.target, one.key.name): one for one in self.store.resources()}

    def tamper(self, target: str, name: str, path: str | None) -> None:
        """Somebody else loads `name`, over whatever is there, or unloads it."""
        server, owner = self.targets[target], self.owners().get((target, name))
        if owner is not None and owner.operation.serves and path == owner.served_path:
            server.served[name] = path  # nobody can tell it from ours
            self.loaded_by[target, name] = GARRISON
        elif path is None:
            server.served.pop(name, None)
            self.loaded_by.pop((target, name), None)
        else:
            server.served[name] = path
            self.loaded_by[target, name] = OTHERS
        self._touched_by_others((target, name))

    def restart(self, target: str) -> None:
        for place in [place for place in self.loaded_by if place[0] == target]:
            del self.loaded_by[place]
            self._touched_by_others(place)
        self.targets[target].restart()

    def _touched_by_others(self, place: Place) -> None:
        self.tampered.add(place)
        self.neglected.add(place)

    def close(self) -> None:
        try:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.turn(asyncio.sleep(1))
            self.turn(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()

    # --- what holds at any time

    def check(self) -> None:
        assert not self.odd, self.odd
        running = {one.id for one in self.store.commands(limit=100_000) if one.state is CommandState.RUNNING}
        for command, actions in self.store._actions.items():
            begun = [one for one in actions.values() if one.state is ActionState.STARTED]
            assert command in running or not begun, f"{command} has ended, and has actions under way: {begun}"
        for key, versions in self.store._versions.items():
            numbers = [one.version for one in versions]
            assert numbers == list(range(1, len(numbers) + 1)), f"versions of {key}: {numbers}"
        stacks = {one.name for one in self.store.stacks()}
        for place, owner in self.owners().items():
            assert owner.stack in stacks, f"{place} belongs to {owner.stack}, which is gone"

    def _start_time(self, pid: int) -> int | None:
        return pid if pid in self.alive else None

    def _unhandled(self, _loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        others = error.split(KilledError)[1] if isinstance(error, BaseExceptionGroup) else error
        if others is not None and not isinstance(others, KilledError):
            self.odd.append(f"{context.get('message')}: {error!r}")


@dataclass
class Process:
    """One of Garrison's processes. A lit fuse kills it at that many effects from now.

    Attributes:
        seen: targets whose list it has had.
        absent: what it has seen proved absent, by a list that was the server's own.
    """

    lab: Lab
    pid: int
    stack: str | None
    force: bool = False
    adopt: bool = False
    traffic: AdapterTraffic = field(default_factory=NoGateway)
    fuse: int | None = None
    after: bool = False
    absent: set[Place] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    taken_away: dict[Place, tuple[str, str]] = field(default_factory=dict)
    """The path that it unloaded, and whose it was: what fails is put back."""
    tasks: list["asyncio.Task[Any]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fleet = _LabFleet(
            store=_Store(self),  # type: ignore[arg-type] # every method is handed on
            dialer=_Dialer(self),
            artifacts=self.lab.artifacts,
            clock=self.lab.clock,
            draws=random.Random(self.pid),
            traffic=self.traffic,
        )

    @property
    def alive(self) -> bool:
        return self.pid in self.lab.alive

    def light(self, fuse: int, *, after: bool) -> None:
        """Die at the effect number `fuse` from now, before or after it."""
        self.fuse, self.after = fuse, after

    def start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        context = contextvars.copy_context()
        context.run(_CURRENT.set, self)
        return context.run(self.lab.loop.create_task, work)

    async def bury(self) -> None:
        """Its tasks end; none of them reaches anything."""
        self.lab.alive.discard(self.pid)
        while left := [task for task in self.tasks if not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def must_live(self) -> None:
        if not self.alive:
            raise KilledError

    @contextlib.contextmanager
    def effect(self) -> Iterator[None]:
        self.must_live()
        burnt = False
        if self.fuse is not None:
            self.fuse -= 1
            burnt = self.fuse < 0
        if burnt and not self.after:
            self.lab.alive.discard(self.pid)
            raise KilledError
        yield
        if burnt:
            self.lab.alive.discard(self.pid)
            raise KilledError

    # --- what may never happen

    def must(self, condition: bool, otherwise: str) -> None:
        """Whoever catches the error, it is known."""
        if not condition:
            self.lab.odd.append(otherwise)
            raise AssertionError(otherwise)

    def changes(self, resources: list[Resource]) -> None:
        for one in resources:
            place = (one.key.target, one.key.name)
            served = self.lab.served(place)
            if one.operation in (Operation.LOST, Operation.DELETED):
                owner = self.lab.owners().get(place)
                proved = place in self.absent or (owner is not None and owner.operation is Operation.LOST)
                proved = proved or (one.operation is Operation.DELETED and served != one.served_path)
                self.must(proved, f"{one.operation} of {place}, which was never seen to be absent")
            if one.operation.serves and served == one.served_path:
                self.lab.loaded_by[place] = GARRISON
                self.lab.tampered.discard(place)
            if one.operation in (Operation.RELEASED, Operation.FORGOTTEN) and place in self.lab.loaded_by:
                self.lab.loaded_by[place] = OTHERS

    def tells(self, told: list[Any]) -> None:
        for one in told:
            place = (one.target, one.name)
            if one.kind == events.DRIFT:
                self.must(place in self.lab.tampered, f"nobody did anything to {place}: {one}")

    def sends(self, place: Place, path: str | None) -> None:
        """Before a load, or an unload where `path` is None."""
        owner = self.lab.owners().get(place)
        if owner is not None and self.stack is not None:
            self.must(owner.stack == self.stack, f"{place} belongs to {owner.stack}, not to {self.stack}")
        if path is None:
            there = self.lab.served(place)
            if there is not None and self.lab.loaded_by.get(place) == OTHERS:
                self.must(self._may_overwrite(owner), f"{place} is somebody else's, from {there}")
            return
        allowed = self._declared_paths(place) | {self.taken_away.get(place, ("", ""))[0]}
        self.must(path in allowed, f"{place} is loaded from {path}; declared: {allowed}")
        self.must(not path.startswith(STORE) or path in self.lab.artifacts.staged, f"{path} is not in the store")

    def _may_overwrite(self, owner: Resource | None) -> bool:
        if self.stack is not None:
            return self.adopt or (self.force and owner is not None)
        stack = self.lab.store.stack(owner.stack) if owner else None
        return stack is not None and stack.declaration["policy"]["on_drift"] == "restore"

    def _declared_paths(self, place: Place) -> set[str | None]:
        return {
            path
            for stack in self.lab.store.stacks()
            if self.stack in (None, stack.name)
            for one in stack.declaration["adapters"]
            if (one["target"], AdapterDeclaration(**one).served_name) == place
            for path in (one["lora_path"], f"{STORE}/{one['digest']}")
        }


class _LabFleet(Fleet):
    """Without threads."""

    async def db(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return call(*args, **kwargs)

    async def read(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        return await self.db(call, *args, **kwargs)

    async def disk(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        self.store.must_live()  # type: ignore[attr-defined] # see _Store
        return call(*args, **kwargs)


class _Store:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._store = process.lab.store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._process.must_live()
            if name not in _WRITES:
                return method(*args, **kwargs)
            with self._process.effect():
                return method(*args, **kwargs)

        return call

    def must_live(self) -> None:
        self._process.must_live()

    def acquire(self, lease: Any, now: Any, *, instead_of: str | None = None) -> Any:
        pid = self._process.pid
        with self._process.effect():
            return self._store.acquire(
                replace(lease, holder=replace(lease.holder, pid=pid, started=pid)), now, instead_of=instead_of
            )

    def declare(
        self, stack: Any, targets: Any, command: Any, actions: Any, events: Any = (), *, seen: Any = None
    ) -> Any:
        with self._process.effect():
            done = self._store.declare(stack, targets, command, actions, events, seen=seen)
            self._process.lab.neglected -= {
                (one.key.target, one.key.name)
                for one in actions
                if one.after is not None and one.key.target in self._process.seen
            }
            return done

    def put(self, resources: Any, events: Any = ()) -> None:
        with self._process.effect():
            self._process.changes(resources)
            self._process.tells(events)
            self._store.put(resources, events)

    def save_actions(self, results: Any) -> None:
        with self._process.effect():
            for one in results:
                self._process.changes(one.resources)
            self._store.save_actions(results)

    def add_events(self, events: Any) -> None:
        with self._process.effect():
            self._process.tells(events)
            self._store.add_events(events)


class _Dialer:
    def __init__(self, process: Process) -> None:
        self._process = process

    @asynccontextmanager
    async def open(self, target: TargetSpec) -> AsyncIterator[Connection]:
        self._process.must_live()
        async with self._process.lab.targets.open(target) as connection:
            yield _Line(self._process, target.name, connection)


class _Line:
    def __init__(self, process: Process, target: str, connection: Connection) -> None:
        self._process = process
        self._target = target
        self._connection = connection

    async def request(self, method: str, path: str, *, json: Any = None, timeout: float, limit: int = 2**22) -> Answer:
        process, server = self._process, self._process.lab.targets[self._target]
        process.must_live()
        if path == "/v1/models":
            answer = await self._connection.request(method, path, timeout=timeout, limit=limit)
            process.must_live()
            if answer.body == json_answer({"object": "list", "data": server._models()}).body:
                self._believable(set(server.served))
            return answer
        if method != "POST" or path not in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            return await self._connection.request(method, path, json=json, timeout=timeout, limit=limit)
        with process.effect():
            await asyncio.sleep(0)
            process.must_live()
            place = (self._target, json["lora_name"])
            process.sends(place, json.get("lora_path"))
            process.must(not json.get("load_inplace"), "load_inplace was sent")
            before = dict(server.served)
            try:
                return await self._connection.request(method, path, json=json, timeout=timeout, limit=limit)
            finally:
                self._did(place, before)

    def _did(self, place: Place, before: dict[str, str]) -> None:
        lab, (target, name) = self._process.lab, place
        was, now = before.get(name), lab.targets[target].served.get(name)
        if was == now:
            return
        if now is None:
            self._process.taken_away[place] = (was or "", lab.loaded_by.pop(place, OTHERS))
            return
        path, by = self._process.taken_away.get(place, ("", ""))
        lab.loaded_by[place] = by if path == now else GARRISON
        if lab.loaded_by[place] == GARRISON:  # what others had loaded, and is put back, is still theirs
            lab.tampered.discard(place)
        self._process.absent.discard(place)

    def _believable(self, names: set[str]) -> None:
        lab, absent = self._process.lab, self._process.absent
        self._process.seen.add(self._target)
        everything = {place for place in lab.owners() if place[0] == self._target}
        absent |= {place for place in everything if place[1] not in names}
        absent -= {place for place in everything if place[1] in names}


def _task(loop: Any, work: Any, **options: Any) -> "asyncio.Task[Any]":
    task = asyncio.Task(work, loop=loop, **options)
    if (process := _CURRENT.get()) is not None:
        process.tasks = [one for one in process.tasks if not one.done()]
        process.tasks.append(task)
    return task


async def _at_once(call: Any, *args: Any) -> Any:
    return call(*args)


def lost_answer(cause: Any) -> TransportError:
    return TransportError(cause, "the connection was reset", sent=True)
