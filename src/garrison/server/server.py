"""The server: what `garrison up` runs from its start to its end."""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from starlette.types import ASGIApp

from garrison.api.app import create_app, guarded
from garrison.api.feed import Feed
from garrison.api.fleet.commands import Notes
from garrison.api.fleet.holds import AdapterHolds
from garrison.api.metrics import Metrics
from garrison.api.services import Services
from garrison.base.errors import GarrisonError
from garrison.base.exit_codes import ExitCode
from garrison.base.logs import logger
from garrison.base.settings import Settings
from garrison.base.systemd import notify
from garrison.fleet.management.local import LocalOperations
from garrison.fleet.management.requests import ApplyRequest
from garrison.gateway.gateway import Gateway
from garrison.gateway.passthrough import PassThrough
from garrison.server.activation import InstanceActivator
from garrison.server.admission import KeyAdmission
from garrison.server.application import Application
from garrison.server.listeners import CONTROL_NAME, SOCKET_NAME, Listener, bind_socket, is_loopback
from garrison.server.lock import ServerLock
from garrison.server.node_activation import NodeActivator, WithNodes
from garrison.server.parts import Parts
from garrison.server.reload import Reload, SettingsWatch
from garrison.server.remote import Remote

__all__ = ["Server", "ServerState"]

_LOOPBACK = "127.0.0.1"

_log = logger(__name__)


class ServerState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    ENDING = "ending"
    ENDED = "ended"


class Server:
    """One server on one data directory. Belongs to one event loop.

    Args:
        parts: what it is made of, opened.
        lock: of the data directory; released at the end.
        reload: reads the settings again; raises GarrisonError for a broken file.
        config: the config file, which is watched.
        note: shows a sentence to whoever started the server.

    Attributes:
        state: where it is.
    """

    def __init__(
        self,
        parts: Parts,
        lock: ServerLock,
        *,
        reload: Callable[[], Settings],
        config: Path,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.state = ServerState.STARTING
        self._parts = parts
        self._lock = lock
        self._note = note
        self._end = asyncio.Event()
        self._watch = SettingsWatch(
            config, reload, lambda: parts.settings, self._reloaded, self._not_reloaded, parts.disk
        )
        self._watching: asyncio.Task[None] | None = None
        self._stop_instances = False
        self._feed = Feed()
        self._listeners: list[Listener] = []
        self._opening: asyncio.Task[None] | None = None
        self._given: Services | None = None
        self._passes: list[PassThrough] = []

    def request_end(self, stop_instances: bool = False) -> None:
        """Have `main_loop` return. Instances go on serving, unless they are to be stopped."""
        self._stop_instances = self._stop_instances or stop_instances
        self._end.set()

    def request_reload(self) -> None:
        """Read the settings again soon."""
        self._watch.ask()

    async def apply(self, request: ApplyRequest) -> None:
        """Apply a manifest. A failure is said and logged; the server goes on."""
        stack = request.declaration.stack
        view = Notes()
        try:
            applied = await LocalOperations(self._parts.fleet).apply(request, view)
        except GarrisonError as error:
            _log.error("the manifest was not applied", stack=stack, code=error.code, error=error.message)
            self._note(f"stack {stack} was not applied: {error.message}")
            return
        for text in view.texts:
            self._note(text)
        code = ExitCode(applied.exit_code)
        _log.info("the manifest was applied", stack=stack, outcome=code.label)
        said = {ExitCode.OK: "is as declared", ExitCode.UNREACHABLE: "is as declared where its targets can be reached"}
        failed = f"was applied with failures ({code.label}); `garrison status` shows them"
        self._note(f"stack {stack} {said.get(code, failed)}")

    async def startup(self) -> None:
        """Listen, adopt what runs, and become ready.

        Raises:
            GarrisonError: the port is taken, or something is configured that cannot be used.
        """
        values, parts = self._parts.settings, self._parts
        await parts.keys.load()
        host, ollama_host = self._allowed(values.server_host), self._allowed(values.gateway_ollama_host)
        # All before anything is adopted: a server that cannot be reached must not take over engines.
        await parts.workers.prepare(host, values.server_port)
        await parts.ollama.prepare(ollama_host, host)
        local = bind_socket(values.data_dir / SOCKET_NAME)
        behind = bind_socket(values.data_dir / CONTROL_NAME)
        app = self._application()
        self._listeners = [
            Listener(app, behind, values, behind=True, drain_seconds=values.drain_timeout),
            Listener(app, local, values, local=True, drain_seconds=values.drain_timeout),
        ]
        for one in self._listeners:
            await one.startup()
        self._feed.attach(parts.instances.bus)
        await parts.instances.startup()
        await parts.startup(self._feed)
        await parts.workers.startup()
        parts.ollama.startup()
        self.state = ServerState.READY
        scheme = "https" if values.tls_cert_file is not None else "http"
        self._note(f"ready on {scheme}://{_shown(host)}:{values.server_port}")
        _log.info("ready", host=host, port=values.server_port)
        if (port := values.gateway_ollama_port) is not None:
            self._note(f"Ollama's API is on {_shown(ollama_host)}:{port}")
        if values.require_management_auth and not self._has_manager():
            self._note("no management key yet: `garrison keys create NAME --manage` makes one")
        if host != values.server_host:
            self._note(f"it listens on {_shown(values.server_host)} as soon as there is one")
        if (host, ollama_host) != (values.server_host, values.gateway_ollama_host):
            self._opening = asyncio.create_task(self._open_when_guarded(), name="open")
        self._watching = asyncio.create_task(self._watch.run(), name="settings")
        notify("READY=1")

    async def main_loop(self) -> None:
        """Serve until `request_end`."""
        await self._end.wait()

    async def shutdown(self) -> None:
        """Finish what is in progress within its limits, and let go of the instances or stop them."""
        self.state = ServerState.ENDING
        notify("STOPPING=1")
        self._feed.close()
        if self._watching is not None:
            self._watching.cancel()
        if self._opening is not None:
            self._opening.cancel()
        self._parts.commands.request_stop()
        if self._given is not None:
            await self._given.holds.shutdown()
        await asyncio.gather(self._parts.ollama.shutdown(), self._parts.workers.shutdown())
        await asyncio.gather(*(one.shutdown() for one in self._listeners))
        await self._parts.instances.shutdown(stop=self._stop_instances)
        for one in self._passes:
            await one.close()
        for name in (SOCKET_NAME, CONTROL_NAME):
            path = self._parts.settings.data_dir / name
            await self._parts.disk.run(lambda path=path: path.unlink(missing_ok=True), "remove a socket")  # type: ignore[misc]  # a default in a lambda
        await self._parts.shutdown()
        self._lock.release()
        self.state = ServerState.ENDED

    def _reloaded(self, fresh: Settings, found: Reload) -> None:
        self._parts.reconfigure(fresh)
        if self._given is not None:
            self._given.settings = fresh
        changed = {"applied": list(found.applied), "need_a_restart": list(found.later)}
        self._feed.push("settings_changed", changed)
        if found.applied:
            self._note(f"the settings were read again: {', '.join(found.applied)}")
        if found.later:
            self._note(f"these settings need another start of the server: {', '.join(found.later)}")

    def _not_reloaded(self, error: GarrisonError) -> None:
        self._feed.push("settings_refused", {"error": error.message})
        self._note(f"the settings in force stay: {error.message}")

    def _has_manager(self) -> bool:
        return self._parts.keys.book.has_manager(self._parts.clock.now())

    def _allowed(self, host: str) -> str:
        """Return where to listen instead of `host`: on loopback, until everybody who reaches the server needs a key, or
        the settings say that nobody does."""
        public = not self._parts.settings.require_management_auth or self._has_manager()
        return host if public or is_loopback(host) else _LOOPBACK

    async def _open_when_guarded(self) -> None:
        """Listen where the settings say once there is a management key. Connections to the loopback address go on."""
        values = self._parts.settings
        while not self._has_manager():
            self._parts.keys_changed.clear()
            await self._parts.keys_changed.wait()
        places = []
        if not is_loopback(values.server_host):
            self._parts.workers.move(values.server_host, values.server_port)
            places.append(f"{_shown(values.server_host)}:{values.server_port}")
        self._parts.ollama.move(values.gateway_ollama_host, values.server_host)
        if values.gateway_ollama_port is not None and not is_loopback(values.gateway_ollama_host):
            places.append(f"{_shown(values.gateway_ollama_host)}:{values.gateway_ollama_port}")
        self._note(f"there is a management key now: listening on {' and '.join(places)}")

    def _application(self) -> ASGIApp:
        parts, values = self._parts, self._parts.settings
        self._given = given = Services(
            settings=values,
            instances=parts.instances,
            routers=parts.routers,
            nodes=parts.nodes,
            keys=parts.keys,
            audit=parts.audit,
            feed=self._feed,
            downloads=parts.downloads(self._feed),
            fleet=parts.commands,
            holds=AdapterHolds(parts.fleet.traffic),
            profiles=parts.routes.profiles,
            metrics=Metrics(
                parts.instances,
                parts.devices,
                self._feed,
                node=values.node_name,
                gateway=parts.workers.traffic.metrics,
                pool=parts.disk,
            ),
            traffic=parts.workers.traffic,
            environ=parts.environ,
            log_path=parts.runner.log_path,
            disk=parts.disk,
            ready=self._why_not_ready,
            closing=lambda: self.state in (ServerState.ENDING, ServerState.ENDED),
            shut_down=self.request_end,
        )
        most = values.max_body_mib * 2**20
        admission = KeyAdmission(lambda: given.settings, parts.limiter, parts.clock)
        here = InstanceActivator(parts.instances, parts.adapters.model, parts.routers.models)
        gateway = Gateway(WithNodes(here, parts.nodes), admission, most_bytes=most)
        local = Gateway(here, admission, most_bytes=most)
        to_nodes = PassThrough(NodeActivator(parts.nodes))
        remote = Remote(parts.instances, parts.nodes, to_nodes, most_bytes=most)
        self._passes = [gateway.passthrough, local.passthrough, to_nodes]
        app = Application(create_app(given), gateway, local, remote, ready=self._why_not_ready, most_bytes=most)
        return guarded(app, given, parts.keys)

    def _why_not_ready(self) -> str:
        return {
            ServerState.READY: "",
            ServerState.STARTING: "it is starting",
        }.get(self.state, "it is ending")


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
