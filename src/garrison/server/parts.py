"""What a server is made of, opened from the settings. Nothing here decides."""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from garrison.access.audit import AuditLog
from garrison.access.book import KeyBook
from garrison.access.key_secret import load_key_secret
from garrison.access.keys import Keys
from garrison.access.limiter import Limiter
from garrison.access.tokens import TokenHasher
from garrison.api.feed import Feed
from garrison.api.fleet.commands import FleetCommands
from garrison.api.models.downloads import Downloads
from garrison.api.models.fetcher import HubFetcher
from garrison.base.clock import SystemClock
from garrison.base.errors import GarrisonError
from garrison.base.settings import Settings
from garrison.engines.environments import in_use
from garrison.fleet.artifacts.disk import DiskArtifacts
from garrison.fleet.context import Fleet
from garrison.fleet.instance_dialer import InstanceDialer
from garrison.fleet.management.local import LocalOperations
from garrison.instances.engine_runner import EngineRunner
from garrison.instances.machine import MachineDevices
from garrison.instances.manager import InstanceManager
from garrison.instances.room.values import Limits
from garrison.instances.routers import Routers
from garrison.instances.settings import ManagerSettings
from garrison.instances.stored import StoredInstances
from garrison.instances.values.state import State
from garrison.launch.log_follower import last_lines
from garrison.launch.run.shims import Shims
from garrison.net.client import HttpDialer
from garrison.net.thread_pool import ThreadPool
from garrison.nodes.ask import HttpAsk
from garrison.nodes.files import NodeFiles
from garrison.nodes.node import NodeView
from garrison.nodes.watch import Nodes
from garrison.server.adapters.loads import AdapterLoads
from garrison.server.adapters.traffic import GatewayTraffic
from garrison.server.fleet_agent import FleetAgent
from garrison.server.listeners import CONTROL_NAME
from garrison.server.stack_instances import ServedInstances
from garrison.server.workers.declared_routes import DeclaredRoutes
from garrison.server.workers.ollama import OllamaListener
from garrison.server.workers.workers import Workers
from garrison.store.records import Event
from garrison.store.sql.store import SqlStore, open_store

__all__ = ["Parts", "manager_settings"]

_STARTS_AT_ONCE = 16
_FLUSH_SECONDS = 5.0
_LOG_LINES = 2000
"""In which the cause of a load that failed is looked for."""


class Parts:
    """The store, the instances and the fleet of one server, and the threads that they block on.

    Args:
        environ: the environment that engines inherit from.
        worker: one of the gateway's that was started ahead.

    Raises:
        GarrisonError: the database cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str] | None = None,
        *,
        worker: asyncio.subprocess.Process | None = None,
    ) -> None:
        self.settings = settings
        environ = os.environ if environ is None else environ
        self.environ = environ
        self._downloads: Downloads | None = None
        self.clock = SystemClock()
        self.store: SqlStore = open_store(settings.database)
        self.disk = ThreadPool("garrison-files", 8)
        self._writes = ThreadPool("garrison-instances")
        self._starts = ThreadPool("garrison-starts", _STARTS_AT_ONCE)
        self._machine = ThreadPool("garrison-machine", 4)
        self._shims = Shims(spare=True)
        self.runner = EngineRunner(
            settings, environ, ports=settings.instance_port_range, pool=self._starts, shims=self._shims
        )
        self.devices = MachineDevices(self._machine, settings, environ, in_use=self._variant)
        self.instances = InstanceManager(
            StoredInstances(self.store, settings.node_name),
            self.runner,
            self.devices,
            manager_settings(settings),
            clock=self.clock,
            pool=self._writes,
        )
        self.routers = Routers(self.instances, HttpDialer(), self._log)
        self._access = ThreadPool("garrison-access")
        secret = load_key_secret(settings.data_dir)
        hasher = TokenHasher(secret)
        self.keys_changed = asyncio.Event()
        self.limiter = Limiter()
        self.keys = Keys(
            self.store, hasher, pool=self._access, clock=self.clock, config_keys=settings.management_keys,
            on_change=self._follow_keys,
        )  # fmt: skip
        self.audit = AuditLog(self.store, pool=self._access, clock=self.clock, node=settings.node_name)
        self._following: asyncio.Task[None] | None = None
        self._ask = HttpAsk()
        self.nodes = Nodes(NodeFiles(settings.data_dir), self._ask, clock=self.clock, pool=self.disk)
        artifacts = DiskArtifacts(settings.data_dir, self.store.identity(), record=self.store)
        served = ServedInstances(self.instances, self.nodes, settings)
        dialer = InstanceDialer(HttpDialer(), served)
        self._traffic = GatewayTraffic()
        self.fleet = Fleet(
            store=self.store, dialer=dialer, artifacts=artifacts, instances=served, traffic=self._traffic
        )  # fmt: skip
        self.routes = DeclaredRoutes(self.fleet, settings.node_name, engines=self._runs_since)
        records = self.routes.adapters
        self.adapters = AdapterLoads(records, self.instances, self.nodes, lambda name: self._agent.look_now(name))
        self.workers = Workers(
            self.instances, self.nodes, self.keys, settings, secret=secret, early=worker,
            control_socket=settings.data_dir / CONTROL_NAME, pool=self._access, disk=self.disk, declared=self.routes,
            adapters=self.adapters, routers=self.routers, store=self.store, clock=self.clock,
        )  # fmt: skip
        self.ollama = OllamaListener(settings, control_socket=settings.data_dir / CONTROL_NAME, disk=self.disk)
        self.commands = FleetCommands(LocalOperations(self.fleet))
        self._agent = FleetAgent(
            self.fleet, retention=timedelta(days=settings.retention), seen=records.saw, repaired=self.adapters.repaired
        )
        self._traffic.begin(
            records, self.adapters, read_again=self.routes.read_again, refresh=self.routes.refresh,
            fresh=self.routes.fresh, left=self.workers.left, look_now=self._agent.look_now,
        )  # fmt: skip

    async def _log(self, name: str) -> list[str]:
        """The end of the log of an instance."""
        path = self.runner.log_path(name)
        return await self.disk.run(lambda: last_lines(path, _LOG_LINES), f"read {path}")

    async def startup(self, feed: Feed) -> None:
        """Begin what runs beside the instances."""
        # The history of this database has the instances' events, too; the feed had them when they happened.
        feed.attach(self.fleet.events, wants=lambda event: event.subject_kind != "instance")
        self._following = asyncio.create_task(self.keys.run(), name="keys")
        self.workers.traffic.startup()

        def tell(view: NodeView) -> None:
            feed.push(f"node_{view.reach}", view.to_json())
            self.workers.update()

        self.nodes.changed = tell
        await self.nodes.startup()
        await self._agent.startup()
        self.routes.changed = self._routes_changed
        await self.routes.startup()
        self.routers.changed = self.workers.update
        await self.routers.startup()

        def runs(event: Event) -> None:
            self._agent.look_now(event.subject_name)  # an engine that has just started has none of its adapters
            self.routers.look()

        self.instances.bus.listen(runs, wants=lambda event: event.kind == f"instance_{State.RUNNING}")
        self._shims.prepare()

    def reconfigure(self, fresh: Settings) -> None:
        """Take other settings. Engines that run go on; those that start have the new values."""
        self.settings = fresh
        self.runner.reconfigure(fresh)
        self.devices.reconfigure(fresh)
        self.instances.reconfigure(manager_settings(fresh))
        self.workers.reconfigure(fresh)
        self.ollama.reconfigure(fresh)

    def downloads(self, feed: Feed) -> Downloads:
        """The downloads of models, which tell `feed`."""
        self._downloads = Downloads(HubFetcher(self.settings, self.environ), feed.add, clock=self.clock)
        return self._downloads

    async def shutdown(self) -> None:
        """End it. Calls that hang on a disk are left behind."""
        if self._downloads is not None:
            await self._downloads.shutdown()
        await self.commands.shutdown()
        await self.adapters.shutdown()
        await self._traffic.shutdown()
        await self.routes.shutdown()
        await self.routers.shutdown()
        await self._agent.shutdown()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        with contextlib.suppress(GarrisonError):
            await self.keys.write_last_used()
        await self.workers.traffic.shutdown()
        await self.audit.close(_FLUSH_SECONDS)
        await self._shims.close()
        await self.nodes.shutdown()
        await self._ask.close()
        for pool in (self._starts, self._machine, self._writes, self._access, self.disk):
            pool.close(0.0)
        self.fleet.close()

    def _runs_since(self, name: str) -> datetime | None:
        live = self.instances.find(name)
        running = live is not None and live.engine is not None and live.state is State.RUNNING
        return live.record.condition.since if live is not None and running else None

    def _routes_changed(self) -> None:
        self.adapters.tell()
        self.workers.update()

    def _follow_keys(self, book: KeyBook) -> None:
        self.limiter.keep(book.keys)
        self.keys_changed.set()
        self.workers.keys_changed()

    def _variant(self, engine: str) -> str | None:
        found = in_use(self.settings.data_dir, engine)
        return None if found is None else found.device


def manager_settings(values: Settings) -> ManagerSettings:
    """What the manager needs of the settings."""
    limits: dict[str, Any] = {"most": values.max_running_instances, "groups": dict(values.group_limits)}
    return ManagerSettings(
        limits=Limits(
            **limits,
            evict=values.enable_lru_eviction,
            residency=values.residency,
            patience=values.patience,
        ),
        idle=values.idle_timeout,
        start_timeout=values.on_demand_start_timeout,
        queue=values.start_queue,
        drain_timeout=values.drain_timeout,
        sleep_timeout=values.sleep_timeout,
        stop_timeout=float(values.stop_timeout),
        most=values.max_instances,
    )
