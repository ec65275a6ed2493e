"""The management API over the twins: no engine, no port, no database."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
from fleet_world import World
from starlette.types import ASGIApp, Receive, Scope, Send

from garrison.access.audit import AuditLog
from garrison.access.keys import Keys
from garrison.access.tokens import TokenHasher
from garrison.api.app import create_app, guarded
from garrison.api.feed import Feed
from garrison.api.fleet.commands import FleetCommands
from garrison.api.fleet.holds import AdapterHolds
from garrison.api.metrics import Metrics
from garrison.api.models.downloads import Downloads
from garrison.api.models.fetcher import Fetcher
from garrison.api.services import Services
from garrison.base.settings import Settings
from garrison.fleet.management.local import LocalOperations
from garrison.instances.manager import InstanceManager
from garrison.instances.room.values import Device
from garrison.instances.routers import Routers
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.state import State
from garrison.nodes.watch import Nodes
from garrison.server.workers.profiles import Profiles
from garrison.server.workers.traffic import Traffic
from garrison.testing.clock import FakeClock
from garrison.testing.instances import MemoryDevices, MemoryInstances, MemoryRunner
from garrison.testing.llama_router import MemoryRouter, MemoryRouters
from garrison.testing.model_fetcher import MemoryFetcher
from garrison.testing.nodes import MemoryNodes, MemoryNodeStore
from garrison.testing.store import MemoryStore
from garrison.testing.thread_pool import DirectPool


class ServedApi:
    """One application, whose parts a test may look at and change. Call `startup` in the event loop that uses it.

    Args:
        directory: everything on disk is below it.
        changes: fields of the settings.

    Attributes:
        client: a caller over TCP, as a stranger is.
        owner: the owner of the data directory, over the unix socket.
        runner, devices, store: what the manager acts on. Starts take no time.
        fleet: targets in memory, and their store.
        llama, llama_log: every router that runs is this one, and has this log.
        environ: what the owner's manifests may name.
        fetcher: downloads wait in the middle until its `hold` is set.
        endings: what `POST /api/v1/shutdown` asked for, in order.
        not_ready: why the server is not ready.
        workers: stand-ins for the workers of the gateway.
    """

    def __init__(
        self,
        directory: Path,
        *,
        devices: Sequence[Device] = (),
        manager: Mapping[str, Any] | None = None,
        fetcher: Fetcher | None = None,
        **changes: Any,
    ) -> None:
        open_to_all = {"require_inference_auth": False, "require_management_auth": False}
        changes = open_to_all | {"data_dir": directory / "data", "models_dir": directory / "models"} | changes
        self.settings = replace(Settings(), **changes)
        self.clock = FakeClock()
        self.pool = DirectPool()
        self.runner = MemoryRunner(start_seconds=0.0, stop_seconds=0.0)
        self.devices = MemoryDevices(devices)
        self.store = MemoryInstances()
        self.llama = MemoryRouter()
        self.llama_log: list[str] = []
        self.fetcher = MemoryFetcher()
        self._fetcher = fetcher
        self.fleet = World()
        self.environ: dict[str, str] = {}
        self.logs = directory / "logs"
        self.feed = Feed()
        self.remote = MemoryNodes()
        self.endings: list[bool] = []
        self.not_ready = ""
        self.workers: list[Any] = []
        self.closing = False
        self._manager_settings = ManagerSettings(**(manager or {}))

    async def startup(self) -> "ServedApi":
        self.instances = InstanceManager(
            self.store, self.runner, self.devices, self._manager_settings, clock=self.clock, pool=self.pool
        )
        self.routers = Routers(self.instances, MemoryRouters(lambda _: self.llama), self._log)
        await self.routers.startup()
        self.instances.bus.listen(lambda _: self.routers.look())
        self.access = MemoryStore()
        hasher = TokenHasher(b"k" * 32)
        self.keys = Keys(
            self.access, hasher, pool=self.pool, clock=self.clock, config_keys=self.settings.management_keys
        )
        await self.keys.load()
        self.audit = AuditLog(self.access, pool=self.pool, clock=self.clock, node="main")
        self.nodes = Nodes(MemoryNodeStore(), self.remote, clock=self.clock, pool=self.pool)
        await self.nodes.startup()
        self.feed.attach(self.instances.bus)
        await self.instances.startup()
        self.commands = FleetCommands(LocalOperations(self.fleet.fleet))
        self.downloads = Downloads(self._fetcher or self.fetcher, self.feed.add, clock=self.clock)
        self.profiles = Profiles()
        self.traffic = Traffic(
            self.access, lambda: self.settings, pool=self.pool, disk=self.pool, clock=self.clock,
            doors=lambda: self.workers,
        )  # fmt: skip
        self.services = self._services()
        self.app = create_app(self.services)
        self.asgi = guarded(self.app, self.services, self.keys)
        self.client = client_of(self.asgi)
        self.owner = client_of(self.asgi, local=True)
        return self

    async def shutdown(self) -> None:
        self.closing = True
        self.feed.close()
        await self.traffic.shutdown()
        await self.client.aclose()
        await self.owner.aclose()
        self.fetcher.hold.set()
        await self.downloads.shutdown()
        await self.commands.shutdown()
        self.fleet.fleet.close()
        await self.routers.shutdown()
        await self.instances.shutdown(stop=True)

    async def _log(self, name: str) -> list[str]:
        return self.llama_log

    async def until(self, name: str, state: State, seconds: float = 5.0) -> None:
        """Wait until an instance is in `state`."""
        async with asyncio.timeout(seconds):
            while self.instances.get(name).state is not state:
                await self.instances.changed(seconds)

    def _services(self) -> Services:
        return Services(
            settings=self.settings,
            instances=self.instances,
            routers=self.routers,
            nodes=self.nodes,
            keys=self.keys,
            audit=self.audit,
            feed=self.feed,
            downloads=self.downloads,
            fleet=self.commands,
            holds=AdapterHolds(self.fleet.fleet.traffic),
            profiles=self.profiles,
            metrics=Metrics(self.instances, self.devices, self.feed, node="main"),
            traffic=self.traffic,
            environ=self.environ,
            log_path=lambda name: self.logs / f"{name}.log",
            disk=self.pool,
            ready=lambda: self.not_ready,
            closing=lambda: self.closing,
            shut_down=self.endings.append,
            clock=self.clock,
        )


def client_of(app: ASGIApp, *, local: bool = False, **headers: str) -> httpx2.AsyncClient:
    """A client of `app`, in this process. Errors of the application are answers, as they are over a socket.

    Args:
        local: it is the owner of the data directory.
        headers: sent with each request.
    """
    transport = httpx2.ASGITransport(app=_Owner(app) if local else app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", headers=headers, timeout=30.0)


class _Owner:
    """Marks each request as one over the unix socket."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["garrison.local"] = True
        await self._app(scope, receive, send)
