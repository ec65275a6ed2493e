"""The models of the routers that run here: asked for in the background, and loaded and unloaded on demand."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from garrison.base.errors import EngineDiedError, InvalidError, NotFoundError, NotReadyError, UnreachableError
from garrison.base.logs import logger
from garrison.base.redaction import redacted
from garrison.engines.llama_load import why_failed
from garrison.engines.llama_preset import models_of_preset
from garrison.engines.llama_router import RouterModel, models_of
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
_EARLY_SECONDS = 2.0
"""A load that fails nearly always fails at once, so whoever asks for it learns of that."""
_EARLY_INTERVAL = 0.1
_MOST_NAMED = 8

_log = logger(__name__)


class Routers:
    """Every router of this machine. Belongs to one event loop.

    Args:
        dialer: asks engines.
        log: returns the end of the log of an instance.

    Attributes:
        changed: is called when the models of a router, or their states, are others than before.
    """

    def __init__(
        self,
        instances: InstanceManager,
        dialer: Dialer[Server],
        log: Callable[[str], Awaitable[Sequence[str]]],
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.changed = changed
        self._instances = instances
        self._dialer = dialer
        self._read_log = log
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
        """Return the models of a router: as it told them last, or those of its preset while it does not run; None for
        what is no router."""
        live, seen = self._instances.find(name), self._seen.get(name)
        if live is None or not live.spec.router:
            return None
        if seen is not None and live.admits and live.engine is seen[0]:
            return seen[1]
        return tuple(RouterModel(one) for one in models_of_preset(live.spec.preset_ini or ""))

    def known(self) -> Mapping[str, tuple[RouterModel, ...]]:
        """Return the models of every router, by its name."""
        found = ((live.name, self.models(live.name)) for live in self._instances.list())
        return {name: models for name, models in found if models is not None}

    async def list(self, name: str) -> dict[str, Any]:
        """Return what llama-server answers to `GET /models`, with `status.error` where a load failed.

        One that does not run is not started for that: then it is what its preset says.

        Raises:
            NotFoundError: there is no such instance.
            InvalidError: it runs another engine.
            NotReadyError: it does not run, and has no preset.
            UnreachableError: it does not answer, or not with a list.
        """
        live = self._llama(name)
        if live.engine is not None and live.admits:
            body, models = await self._ask(live, live.engine.upstream)
            reasons = {one.id: one.reason for one in models if one.reason}
            for entry in body["data"]:
                if isinstance(entry, dict) and entry.get("id") in reasons:
                    entry["status"]["error"] = reasons[entry["id"]]
            return body
        if models := self.models(name) or ():
            return {"object": "list", "data": [{**one.to_json(), "object": "model"} for one in models]}
        raise NotReadyError(
            f"instance {name} is {live.state}", hint=f"POST /api/v1/instances/{name}/start", details={"instance": name}
        )

    async def load(self, name: str, model: str) -> None:
        """Begin to load a model, unless it is loaded, and start its router first if necessary.

        Raises:
            NotFoundError: there is no such instance, or it has no such model.
            InvalidError: it is no router, or refuses.
            EngineDiedError: the model cannot be loaded; the cause.
            UnreachableError: it does not answer.
            GarrisonError: it cannot be started; the cause.
        """
        live = self._router(name)
        lease = await self._instances.acquire(name)
        try:
            await self._send(live, lease.upstream, "load", model, done=("loaded", "loading", "sleeping"))
            await self._watch(live, lease.upstream, model)
        finally:
            lease.release()
            self.look()

    async def unload(self, name: str, model: str) -> None:
        """Unload a model, if it is loaded. Raises as `load`. A router that does not run is left alone."""
        live = self._router(name)
        if live.engine is None or not live.admits:
            return
        try:
            await self._send(live, live.engine.upstream, "unload", model, done=("unloaded", "failed"))
        finally:
            self.look()

    async def _send(self, live: Live, upstream: Upstream, verb: str, model: str, *, done: tuple[str, ...]) -> None:
        """Have a model loaded or unloaded; `done`: its states where there is nothing to do."""
        answer = await self._call(live.name, upstream, "POST", f"/models/{verb}", {"model": model})
        if answer.status == 200:
            return
        _, models = await self._ask(live, upstream)
        found = _named(models, model)
        if found is None:
            known = ", ".join(one.id for one in models[:_MOST_NAMED])
            raise NotFoundError(
                f"{live.name} has no model {model!r}", hint=f"It has {known}." if known else "It has none.",
            )  # fmt: skip
        if found.status not in done:
            raise InvalidError(
                f"{live.name} does not {verb} {model!r}: {_said(answer)}",
                hint=f"GET /api/v1/instances/{live.name}/logs has more.",
            )

    async def _watch(self, live: Live, upstream: Upstream, model: str) -> None:
        """Return when a model is loaded, or has been loading for a while. Raises EngineDiedError."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EARLY_SECONDS):
                while True:
                    _, models = await self._ask(live, upstream)
                    found = _named(models, model)
                    if found is not None and found.status == "failed":
                        code = "" if found.exit_code is None else f", its process exited with {found.exit_code}"
                        raise EngineDiedError(
                            f"{live.name} cannot load {model!r}: {found.reason or f'it failed{code}'}",
                            hint=f"GET /api/v1/instances/{live.name}/logs has more.",
                            details={"instance": live.name, "model": model, "returncode": found.exit_code},
                        )
                    if found is None or found.status != "loading":
                        return
                    await asyncio.sleep(_EARLY_INTERVAL)

    async def _follow(self) -> None:
        while True:
            self._asked.clear()
            loading = False
            try:
                loading = await self._look()
            except Exception as error:  # noqa: BLE001 - one round that fails is not the last
                _log.error("the routers were not looked at", exception=error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOADING_INTERVAL if loading else _INTERVAL):
                    await self._asked.wait()

    async def _look(self) -> bool:
        """Ask every router that runs, all at once; return whether one of them is loading a model."""
        before = self.known()
        running = [live for live in self._instances.list() if live.admits and live.spec.router]
        await asyncio.gather(*(self._see(live) for live in running))
        self._seen = {live.name: self._seen[live.name] for live in running if live.name in self._seen}
        now = self.known()
        if now != before:
            self.changed()
        return any(one.status == "loading" for models in now.values() for one in models)

    async def _see(self, live: Live) -> None:
        """What does not answer leaves what was seen before."""
        engine = live.engine
        if engine is None:
            return
        try:
            self._seen[live.name] = (engine, (await self._ask(live, engine.upstream))[1])
        except UnreachableError as error:
            _log.warning("a router does not list its models", name=live.name, error=error.message)

    async def _ask(self, live: Live, upstream: Upstream) -> tuple[dict[str, Any], tuple[RouterModel, ...]]:
        """Return the list of models as it is told, and as it is understood, with the reasons of loads that failed.

        Raises:
            UnreachableError: it does not answer, or not with a list.
        """
        answer = await self._call(live.name, upstream, "GET", "/models", seconds=_ASK_SECONDS)
        models = models_of(answer.body) if answer.status == 200 else None
        if models is None:
            raise UnreachableError(
                f"instance {live.name} answers GET /models with {answer.status} and no list of models",
                details={"instance": live.name},
            )
        if any(one.status == "failed" for one in models):
            log = await self._read_log(live.name)
            models = tuple(_explained(one, log) if one.status == "failed" else one for one in models)
        return json.loads(answer.body), models

    def _llama(self, name: str) -> Live:
        live = self._instances.get(name)
        if live.spec.engine != "llama_cpp":
            raise InvalidError(
                f"instance {name} runs {live.spec.engine}; only llama_cpp has these calls", details={"instance": name}
            )
        return live

    def _router(self, name: str) -> Live:
        live = self._llama(name)
        if not live.spec.router:
            raise InvalidError(
                f"instance {name} has one model, which it loads when it starts",
                hint=f"POST /api/v1/instances/{name}/start, or give it a preset_ini instead of a model.",
                details={"instance": name},
            )
        return live

    async def _call(
        self, name: str, upstream: Upstream, method: str, path: str, body: Any = None, *, seconds: float = _CALL_SECONDS
    ) -> Answer:
        headers = {"authorization": f"Bearer {upstream.key}"} if upstream.key else {}
        try:
            async with self._dialer.open(Server(base_url=upstream.url, headers=headers)) as connection:
                return await connection.request(method, path, json=body, timeout=seconds)
        except TransportError as error:
            raise UnreachableError(
                f"instance {name} does not answer {method} {path}: {error}", details={"instance": name}
            ) from None


def _explained(model: RouterModel, log: Sequence[str]) -> RouterModel:
    return replace(model, reason=redacted(why_failed(log, model)))


def _named(models: Sequence[RouterModel], name: str) -> RouterModel | None:
    return next((one for one in models if name == one.id or name in one.aliases), None)


def _said(answer: Answer) -> str:
    """What llama-server says in an error."""
    with contextlib.suppress(ValueError, RecursionError, LookupError, TypeError):
        return str(json.loads(answer.body)["error"]["message"])
    return f"it answered {answer.status}"
