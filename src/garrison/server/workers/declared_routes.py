"""Follows what stacks declare for the gateway: read again whenever that changes, their keys once a minute."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from garrison.base.errors import GarrisonError
from garrison.base.logs import logger
from garrison.fleet.context import Fleet
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration
from garrison.fleet.values.demand import Place
from garrison.fleet.values.target import TargetSpec
from garrison.net.endpoint import Secret
from garrison.net.secrets import SecretError, Secrets
from garrison.server.adapters.places import AdapterPlace
from garrison.server.adapters.records import AdapterRecords, Engines
from garrison.server.adapters.routes import adapter_routes
from garrison.server.workers.declared import (
    Declared,
    DeclaredStack,
    FleetTarget,
    declared_ends,
    declared_routes,
    fleet_target,
    why_not_routable,
)
from garrison.server.workers.profiles import Profiles, declared_profiles
from garrison.store.records import Event

__all__ = ["DeclaredRoutes"]

_AGAIN_SECONDS = 60.0
_UNSEEN_SECONDS = 2.0
"""While a target has not been seen yet, so that its model is not known."""
_FAILED_SECONDS = 5.0
_KEY_SECONDS = 0.5
"""After which what is known is told without the keys that take longer."""
_START_SECONDS = 2.0
_SETTLE_SECONDS = 0.05
_FRESH_SECONDS = 0.3
_UNREAD = "its key is being read"

_log = logger(__name__)


class DeclaredRoutes:
    """What is declared, as last read.

    Args:
        node: the name of this node.
        engines: returns since when the engine of an instance runs.

    Attributes:
        now: what there is.
        changed: is called when that is something else.
        adapters: where adapters are loaded.
        profiles: those that are declared, and the active one.
    """

    def __init__(
        self, fleet: Fleet, node: str, secrets: Secrets | None = None, *, engines: Engines = lambda _name: None
    ) -> None:
        self.now = Declared()
        self.profiles = Profiles()
        self.profiles.changed = self.refresh
        self.changed: Callable[[], None] = lambda: None
        self._fleet = fleet
        self._here = (None, node)
        self.adapters = AdapterRecords(fleet, self._here, engines)
        self.adapters.changed = self._refresh_soon
        self._secrets = Secrets() if secrets is None else secrets
        self._revision = -1
        self._stacks: list[DeclaredStack] = []
        self._targets: list[FleetTarget] = []
        self._keys: dict[Secret, str | SecretError] = {}
        self._wake = asyncio.Event()
        self._read_once = asyncio.Event()
        self._reading = asyncio.Lock()
        self._looked_at = -1.0
        self._refused: list[tuple[str, str, str]] = []
        self._work: asyncio.Task[None] | None = None
        self._places: Mapping[Place, AdapterPlace] = {}
        self._soon: asyncio.TimerHandle | None = None
        self._told = self.now

    async def startup(self) -> None:
        """Begin, and wait a little for what is declared: requests should find it from the first moment on."""
        self._fleet.events.listen(self._happened)
        self._work = asyncio.create_task(self._run(), name="routes")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                await self._read_once.wait()

    async def fresh(self, seconds: float = _FRESH_SECONDS) -> None:
        """Return when everything that was applied before is in `now`, but at the latest after a moment.

        Callers share one look at the database, as there may be many who ask for a name that does not exist.
        """
        asked = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError, GarrisonError):
            async with asyncio.timeout(seconds), self._reading:
                if self._looked_at <= asked and await self._look():
                    self._wake.set()  # for keys that take longer
                    await self._read_keys(known=True)
                    self._tell()

    async def read_again(self) -> None:
        """Read what was recorded up to now.

        Raises:
            GarrisonError: the store cannot be read.
        """
        async with self._reading:
            await self._look()

    def refresh(self) -> None:
        """Tell at once what has changed although nothing was recorded."""
        if self._revision >= 0:
            self._tell()

    def follow_engines(self) -> None:
        """Have `now` say where adapters are loaded, by the engines that run at this moment. Nobody is told."""
        if self._revision >= 0 and self.adapters.places() is not self._places:
            self.now = self._declared()

    def _refresh_soon(self) -> None:
        """Many targets may have been seen at once."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self._refresh_now)

    def _refresh_now(self) -> None:
        self._soon = None
        self.refresh()

    async def shutdown(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])

    def _happened(self, event: Event) -> None:
        if event.subject_kind != "instance":
            self._wake.set()

    async def _run(self) -> None:
        async with contextlib.AsyncExitStack() as feed:
            with contextlib.suppress(GarrisonError):  # then a look in a while finds what has changed
                await feed.enter_async_context(self._fleet.feed.running())
            while True:
                seconds = await self._look_and_tell()
                self._read_once.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wake.wait()
                await asyncio.sleep(_SETTLE_SECONDS)
                self._wake.clear()

    async def _look_and_tell(self) -> float:
        try:
            return await self._follow()
        except GarrisonError as error:
            _log.warning("what stacks declare for the gateway cannot be read", error=error.message)
            return _FAILED_SECONDS

    async def _follow(self) -> float:
        """Read what has changed, tell it, and return after how many seconds to look again."""
        async with self._reading:
            await self._look(anyway=self._unseen())
        await self._read_keys()
        self._tell()
        return _UNSEEN_SECONDS if self._unseen() else _AGAIN_SECONDS

    async def _look(self, *, anyway: bool = False) -> bool:
        """Read what is declared if it has changed, and return whether it has."""
        self._looked_at = asyncio.get_running_loop().time()
        revision = await self._fleet.read(self._fleet.store.revision)
        if not anyway and revision == self._revision:
            return False
        await self._read()
        self._revision = revision
        return True

    def _unseen(self) -> bool:
        return any(not (one.base or one.spec.base_model) for one in self._targets)

    async def _read(self) -> None:
        store, read = self._fleet.store, self._fleet.read
        heads = [one for one in await read(store.stacks, at=()) if not one.ending]
        adapters: dict[str, list[AdapterDeclaration]] = {one.name: [] for one in heads}
        targets = {one.name: one for one in await read(store.targets)}
        owners: dict[str, str] = {}
        for part in await read(store.declared, targets.keys()):
            if part.stack in adapters:
                adapters[part.stack] += [AdapterDeclaration(**one) for one in part.adapters]
                if part.spec is not None:
                    owners.setdefault(part.target, part.stack)
        self._stacks = [
            DeclaredStack(
                replace(Declaration.from_json(one.declaration), adapters=tuple(adapters[one.name])),
                int(one.at.timestamp()),
            )
            for one in heads
        ]
        found = []
        for name, stack in owners.items():
            record = targets[name]
            spec = TargetSpec.from_json(name, record.spec)
            if spec.instance is None:
                found.append(FleetTarget(spec, record.base or "", stack, int(record.declared_at.timestamp())))
        self._targets = found
        specs = [TargetSpec.from_json(name, targets[name].spec) for name in owners]
        await self.adapters.read([one.declaration for one in self._stacks], specs)

    async def _read_keys(self, *, known: bool = False) -> None:
        """Read all keys at once. Those that take long are told when they have come. `known`: those are left out."""
        wanted = {one.spec.api_key for one in self._targets if one.spec.api_key is not None}
        self._keys = {secret: key for secret, key in self._keys.items() if secret in wanted}
        if known:
            wanted -= self._keys.keys()
        if wanted:
            tasks = [asyncio.create_task(self._read_key(one)) for one in wanted]
            try:
                _, slow = await asyncio.wait(tasks, timeout=_KEY_SECONDS)
                if slow:
                    self._tell()
                    self._read_once.set()
                    await asyncio.wait(slow)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)  # a command that is cancelled ends with all its processes

    async def _read_key(self, secret: Secret) -> None:
        try:
            self._keys[secret] = await self._secrets.text(secret)
        except SecretError as error:
            self._keys[secret] = error

    def _tell(self) -> None:
        fresh = self._declared()
        before, self._told, self.now = self._told, fresh, fresh
        for key, reason in fresh.reasons.items():
            if before.reasons.get(key) != reason and reason != _UNREAD:
                _log.warning("no request can go to a target", target=key, reason=reason)
        if before != fresh:
            self.changed()

    def _declared(self) -> Declared:
        places = self._places = self.adapters.places()
        routes, refused = declared_routes(self._stacks, here=self._here, places=places)
        if refused != self._refused:
            self._refused = refused
            for name, stack, owner in refused:
                _log.warning("a route is not answered: another stack has the name", route=name, stack=stack, has=owner)
        values, own, reasons = {}, {}, {}
        for one in self._targets:
            key, reason = self._key_of(one)
            value, route = fleet_target(one, key, cold=bool(reason))
            values[value.id], own[route.name] = value, route
            if reason:
                reasons[value.id] = reason
        created = {one.declaration.stack: one.created for one in self._stacks}
        declarations = [one.declaration for one in self._stacks]
        found = adapter_routes(declarations, places, here=self._here, created=created)
        adapters = {name: route for name, (route, _) in found.items()}
        ends = {name: ends for name, (_, ends) in found.items()} | declared_ends(self._stacks)
        self.profiles.declare(declared_profiles(declarations))
        return Declared(routes, values, own, adapters, ends, reasons, self.profiles.pins)

    def _key_of(self, target: FleetTarget) -> tuple[str | None, str]:
        """Return the key of a target, and why no request can go there."""
        if reason := why_not_routable(target.spec):
            return None, reason
        if target.spec.api_key is None:
            return None, ""
        key = self._keys.get(target.spec.api_key)
        if isinstance(key, str):
            return key, ""
        return None, _UNREAD if key is None else f"its key cannot be read: {key}"
