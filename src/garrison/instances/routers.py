"""The models of the routers that run here: asked for in the background, and loaded and unloaded on demand."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from garrison.base.errors import InvalidError, NotFoundError, NotReadyError, UnreachableError
from garrison.base.logs import logger
from garrison.engines.llama_router import RouterModel, models_in
from garrison.instances.live import Live
from garrison.instances.manager import InstanceManager
from garrison.instances.runner import RunningEngine, Upstream
from garrison.net.endpoint import Server
from garrison.net.transport import Answer, Dialer, TransportError

__all__ = ["Routers"]

_ASK_SECONDS = 5.0
_CALL_SECONDS = 60.0
_INTERVAL = 10.0
"""A request loads a model, and has another one leave for it, without a word to the server."""
_LOADING_INTERVAL = 0.5

_log = logger(__name__)


class Routers:
    """Every router of this machine. Belongs to one event loop.

    Args:
        dialer: asks engines.

    Attributes:
        changed: is called when the models of a router, or their states, are others than before.
    """

    def __init__(
        self, instances: InstanceManager, dialer: Dialer[Server], *, changed: Callable[[], None] = lambda: None
    ) -> None:
        self.changed = changed
        self._instances = instances
        self._dialer = dialer
        self._seen: dict[str, tuple[RunningEngine, tuple[RouterModel, ...]]] = {}
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Begin to ask the routers that run."""
        self._task = asyncio.create_task(self._follow(), name="routers")

    async def shutdown(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def look(self) -> None:
        """Ask now: one has become ready, or has been told to load or unload something."""
        self._asked.set()

    def models(self, name: str) -> tuple[RouterModel, ...] | None:
        """Return the models of a router as it told them last; None where it does not run, or has not been asked yet."""
        live, seen = self._instances.find(name), self._seen.get(name)
        if live is None or seen is None or not live.admits or live.engine is not seen[0]:
            return None
        return seen[1]

    def known(self) -> Mapping[str, tuple[RouterModel, ...]]:
        """Return the models of every router that runs, by its name."""
        return {name: models for name in self._seen if (models := self.models(name)) is not None}

    async def list(self, name: str) -> Answer:
        """Return what llama-server answers to `GET /models`. One that does not run is not started.

        Raises:
            NotFoundError: there is no such instance.
            InvalidError: it runs another engine.
            NotReadyError: it does not run.
            UnreachableError: it does not answer.
        """
        live = self._llama(name)
        if live.engine is None or not live.admits:
            raise NotReadyError(
                f"instance {name} is {live.state}", hint=f"POST /api/v1/instances/{name}/start",
                details={"instance": name},
            )  # fmt: skip
        return await self._call(name, live.engine.upstream, "GET", "/models", seconds=_ASK_SECONDS)

    async def send(self, name: str, verb: str, body: Any) -> Answer:
        """Return what llama-server answers to `POST /models/load` or `/models/unload`, after a start if necessary.

        Args:
            verb: `load`, which is answered when it has begun, or `unload`.
            body: JSON with the `model`.

        Raises:
            NotFoundError, InvalidError, UnreachableError: as `list`.
            GarrisonError: the instance cannot be started; the cause.
        """
        self._llama(name)
        lease = await self._instances.acquire(name)
        try:
            return await self._call(name, lease.upstream, "POST", f"/models/{verb}", body, seconds=_CALL_SECONDS)
        finally:
            lease.release()
            self.look()

    async def load(self, name: str, model: str) -> None:
        """Begin to load a model, unless it is loaded. Raises as `send`, and NotFoundError where there is none."""
        await self._change(name, "load", model, done=("loaded", "loading", "sleeping"))

    async def unload(self, name: str, model: str) -> None:
        """Unload a model, if it is loaded. Raises as `send`, and NotFoundError where there is none.

        A router that does not run is left alone: it has none loaded.
        """
        if self._llama(name).engine is None:
            return
        await self._change(name, "unload", model, done=("unloaded", "failed"))

    async def _change(self, name: str, verb: str, model: str, *, done: tuple[str, ...]) -> None:
        answer = await self.send(name, verb, {"model": model})
        if answer.status == 200:
            return
        now = {one.id: one.status for one in models_in((await self.list(name)).body) or ()}
        if model not in now:
            raise NotFoundError(f"{name} has no model {model!r}", hint="GET /v1/models lists those that exist.")
        if now[model] not in done:
            raise InvalidError(
                f"{name} does not {verb} {model!r}: it answered {answer.status}",
                hint=f"GET /api/v1/instances/{name}/logs has its reason.",
            )

    async def _follow(self) -> None:
        while True:
            self._asked.clear()
            loading = await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOADING_INTERVAL if loading else _INTERVAL):
                    await self._asked.wait()

    async def _look(self) -> bool:
        """Ask every router that runs, all at once; return whether one of them is loading a model."""
        before = self.known()
        running = [live for live in self._instances.list() if live.admits and live.spec.router]
        await asyncio.gather(*(self._ask(live) for live in running))
        now = self.known()
        self._seen = {name: self._seen[name] for name in now}
        if now != before:
            self.changed()
        return any(one.status == "loading" for models in now.values() for one in models)

    async def _ask(self, live: Live) -> None:
        """What does not answer leaves what was seen before."""
        engine = live.engine
        if engine is None:
            return
        try:
            answer = await self._call(live.name, engine.upstream, "GET", "/models", seconds=_ASK_SECONDS)
        except UnreachableError as error:
            _log.warning("a router does not list its models", name=live.name, error=error.message)
            return
        models = models_in(answer.body) if answer.status == 200 else None
        if models is None:
            _log.warning("a router does not list its models", name=live.name, status=answer.status)
            return
        self._seen[live.name] = (engine, models)

    def _llama(self, name: str) -> Live:
        live = self._instances.get(name)
        if live.spec.engine != "llama_cpp":
            raise InvalidError(
                f"instance {name} runs {live.spec.engine}; only llama_cpp has these calls",
                details={"instance": name},
            )
        return live

    async def _call(
        self, name: str, upstream: Upstream, method: str, path: str, body: Any = None, *, seconds: float
    ) -> Answer:
        headers = {"authorization": f"Bearer {upstream.key}"} if upstream.key else {}
        try:
            async with self._dialer.open(Server(base_url=upstream.url, headers=headers)) as connection:
                return await connection.request(method, path, json=body, timeout=seconds)
        except TransportError as error:
            raise UnreachableError(
                f"instance {name} does not answer {method} {path}: {error}", details={"instance": name}
            ) from None
