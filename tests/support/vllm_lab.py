"""One stack on one real vLLM, with a database, adapter files and a network of its own: `fleet_world` without twins."""

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny_model as maker
from tests_environment import environment
from vllm_server import Server

from garrison.fleet.agent.loop import Agent
from garrison.fleet.artifacts.disk import DiskArtifacts
from garrison.fleet.context import Fleet
from garrison.fleet.operations.apply import Applied, apply, destroy, preview
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration, Policy
from garrison.fleet.values.plan import Plan
from garrison.fleet.values.target import TargetSpec
from garrison.net.client import HttpDialer
from garrison.net.endpoint import Secret
from garrison.net.transport import Answer, Connection
from garrison.store.records import Event, Key, Resource, TargetRecord
from garrison.store.sql.store import open_store
from garrison.testing.views import RecordingFleetView

__all__ = ["KEY_VARIABLE", "TARGET", "Lab"]

TARGET = "edge"
KEY_VARIABLE = "FLEET_SUITE_KEY"


@dataclass
class ListeningDialer:
    """The real way to targets, which remembers what was sent.

    Attributes:
        sent: (method, path, name of the adapter or None), in order.
    """

    dialer: HttpDialer = field(default_factory=HttpDialer)
    sent: list[tuple[str, str, str | None]] = field(default_factory=list)

    def open(self, target: TargetSpec) -> AbstractAsyncContextManager[Connection]:
        return self._open(target)

    @asynccontextmanager
    async def _open(self, target: TargetSpec) -> AsyncIterator[Connection]:
        async with self.dialer.open(target) as connection:
            yield ListeningConnection(connection, self.sent)


@dataclass
class ListeningConnection:
    connection: Connection
    sent: list[tuple[str, str, str | None]]

    async def request(
        self, method: str, path: str, *, json: Any = None, timeout: float, limit: int = 4 * 1024 * 1024
    ) -> Answer:
        self.sent.append((method, path, json.get("lora_name") if json else None))
        return await self.connection.request(method, path, json=json, timeout=timeout, limit=limit)


class Lab:
    """The stack and every name in it begin with `tag`: nobody else's are touched on a server that others use too."""

    def __init__(self, server: Server, tag: str, home: Path) -> None:
        self.server = server
        self.tag = tag
        self.home = home
        self.files = server.shared / tag
        self.base = server.base
        self.store = open_store(home / "garrison.db")
        self.dialer = ListeningDialer()
        self.view = RecordingFleetView()
        self.fleet = Fleet(
            store=self.store,
            dialer=self.dialer,
            artifacts=DiskArtifacts(home, self.store.identity(), record=self.store),
        )

    def close(self) -> None:
        self.fleet.close()
        if not self.server.healthy():
            return
        for name in self.served:
            self.server.unload(name)
        shutil.rmtree(self.files, ignore_errors=True)

    # --- what is declared

    def name(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def adapter(self, name: str = "sql", *, seed: int = 1, **options: Any) -> Path:
        """A directory with an adapter; made again, it holds other weights at the same path."""
        return Path(maker.make_adapter(self.files / name, seed=seed, **options))

    def target(self, **changes: Any) -> TargetSpec:
        values: dict[str, Any] = {
            "name": TARGET,
            "base_url": self.server.url,
            "base_model": self.base,
            "api_key": Secret("env", KEY_VARIABLE) if self.server.key else None,
            "adapter_store": str(self.files / "store"),
        }
        return TargetSpec(**(values | changes))

    def spec(self, path: Path, name: str = "sql", **changes: Any) -> AdapterDeclaration:
        values = {"target": TARGET, "label": name, "lora_name": self.name(name), "lora_path": str(path)}
        return AdapterDeclaration(**(values | changes))

    def declare(
        self,
        *adapters: AdapterDeclaration,
        target: TargetSpec | None = None,
        on_drift: Any = "report",
        interval: float = 30,
    ) -> Declaration:
        policy = Policy(on_drift=on_drift, interval=interval)
        return Declaration(stack=self.tag, targets={TARGET: target or self.target()}, adapters=adapters, policy=policy)

    # --- what is done

    async def plan(self, declaration: Declaration, **options: Any) -> Plan:
        return await preview(self.fleet, declaration, self.view, options=PlanOptions(**options))

    async def apply(self, declaration: Declaration, **options: Any) -> Applied:
        return await apply(self.fleet, declaration, self.view, mode="reconcile", options=PlanOptions(**options))

    async def destroy(self) -> Applied:
        return await destroy(self.fleet, self.tag, self.view, options=PlanOptions())

    async def agent_pass(self) -> Agent:
        """An agent that is started, looks once, does what is due, and ends."""
        agent = Agent(self.fleet, self.view)
        await agent.startup()
        await agent.once()
        await agent.shutdown()
        return agent

    def garrison(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The console script, on a database and a data directory of its own."""
        command = [str(Path(sys.executable).with_name("garrison")), *arguments]
        return subprocess.run(
            command, env=self.environ(), cwd=self.home, capture_output=True, text=True, timeout=100, check=False
        )

    def environ(self) -> dict[str, str]:
        own = {"GARRISON_DATA_DIR": str(self.files / "data")}
        return environment(self.home) | own | ({KEY_VARIABLE: self.server.key} if self.server.key else {})

    # --- what came of it

    @property
    def served(self) -> dict[str, str]:
        """Names and paths of this lab's adapters on the server."""
        return {name: path for name, path in self.server.adapters().items() if name.startswith(self.tag)}

    def changes(self, since: int = 0) -> list[tuple[str, str | None]]:
        """Loads and unloads that Garrison sent, by the last word of the route. One that names nothing only asks whether
        there is the route, and changes nothing."""
        routes = {"/v1/load_lora_adapter": "load", "/v1/unload_lora_adapter": "unload"}
        sent = self.dialer.sent[since:]
        return [(routes[path], name) for method, path, name in sent if method == "POST" and path in routes and name]

    def recorded(self, name: str = "sql") -> Resource | None:
        key = Key(TARGET, ADAPTER_TYPE, self.name(name))
        return next((one for one in self.store.resources() if one.key == key), None)

    def remembered(self) -> TargetRecord:
        (found,) = self.store.targets([TARGET])
        return found

    def told(self, *kinds: str) -> list[Event]:
        """Events of these kinds, oldest first."""
        return list(reversed(self.store.events(kinds=kinds, limit=1000)))
