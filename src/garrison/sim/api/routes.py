"""Choose the handler of a request, after what comes before it: disguises, faults, the API key."""

import asyncio
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote

from garrison.sim import metrics
from garrison.sim.api import adapter_routes, control
from garrison.sim.api.bodies import detail, dumps, error, invalid, model_list, ok
from garrison.sim.api.calls import json_object, prompts_of
from garrison.sim.api.embeddings import embeddings
from garrison.sim.api.generation import generate
from garrison.sim.engine import PARTS, Refusal
from garrison.sim.faults import Verdict, decide
from garrison.sim.http.messages import ConnectionDroppedError, Later, Request, Response
from garrison.sim.state import ServerState

__all__ = ["Routes"]

Handler = Callable[[Request], Response | Later]

_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_PORTAL = (
    b"<!DOCTYPE html><html><head><title>Welcome</title></head><body>Please sign in to use the network.</body></html>"
)
_HTML = "text/html; charset=utf-8"
_LEVEL = re.compile(r"[012]\Z")


class Routes:
    """The application: called with a request, returns its answer."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._models: tuple[tuple[Any, ...], Response] | None = None
        self._table = self._routes()

    def __call__(self, request: Request) -> Response | Later:
        state = self._state
        self._strip_root(request)
        path = request.path
        if path == "/_sim" or path.startswith("/_sim/"):
            return control.answer(state, request)
        state.counters.requests[path if path in self._table else "other"] += 1
        faults = state.faults
        if faults.quiet:
            return self._route(request)
        if faults.disguise == "captive-portal":
            return Response(200, _PORTAL, _HTML)
        if faults.disguise == "redirect":
            return Response(302, b"", None, (("location", faults.redirect_to + path),))
        draw = state.draws.random() if faults.failure_rate else 1.0
        verdict, state.used = decide(faults, state.used, request.method, path, draw)
        if verdict.rule is None and verdict.action == "pass":
            return self._route(request)
        return self._injected(request, verdict)

    def _strip_root(self, request: Request) -> None:
        """Remove the root path, up to a slash, from the front of the path. Starlette does the same."""
        root = self._state.config.root_path
        if root and (request.path == root or request.path.startswith(root + "/")):
            request.path = request.path[len(root) :]

    def _injected(self, request: Request, verdict: Verdict) -> Response | Later:
        state, rule, action = self._state, verdict.rule, verdict.action
        state.counters.injected[action] += 1

        async def later() -> Response:
            if rule is not None and rule.delay:
                await state.sleep(rule.delay)
            if action == "hang":
                await control.never()
            if action == "reset":
                raise ConnectionDroppedError
            if action == "status":
                assert rule is not None
                assert rule.status is not None
                refusal = Refusal(rule.status, rule.type, rule.message)
                response = error(refusal, state.config.error_shape)
                response.headers = rule.headers
                return response
            answer = self._route(request)
            response = answer if isinstance(answer, Response) else await answer()
            if action == "cut" and isinstance(response.body, bytes):
                return replace(response, cut=True)  # a copy: the answer of the model list is cached
            return response

        return later

    def _route(self, request: Request) -> Response | Later:
        path = request.path
        if self._state.config.api_keys and path.startswith(_GUARDED) and not self._authorized(request):
            return Response(401, dumps({"error": "Unauthorized"}), "application/json")
        methods = self._table.get(path)
        if methods is None:
            return self._elsewhere(request)
        handler = methods.get(request.method)
        if handler is None:
            return detail(405, "Method Not Allowed", (("allow", ", ".join(methods)),))
        return handler(request)

    def _elsewhere(self, request: Request) -> Response | Later:
        path = request.path
        if self._adapters_open and path.startswith("/adapters/") and len(path) > len("/adapters/"):
            if request.method != "DELETE":
                return detail(405, "Method Not Allowed", (("allow", "DELETE"),))
            return adapter_routes.unload_twin(self._state, unquote(path[len("/adapters/") :]))
        if path.endswith("/") and path[:-1] in self._table:
            host = request.headers.get("host", "")
            scheme = "https" if self._state.config.ssl_certfile else "http"
            return Response(307, b"", None, (("location", f"{scheme}://{host}{path[:-1]}"),))
        return detail(404, "Not Found")

    @property
    def _adapters_open(self) -> bool:
        return self._state.config.runtime_lora

    def _authorized(self, request: Request) -> bool:
        if request.method == "OPTIONS":
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        token = given.encode()
        matches = [hmac.compare_digest(token, key.encode()) for key in self._state.config.api_keys]
        return scheme.lower() == "bearer" and any(matches)

    def _routes(self) -> dict[str, dict[str, Handler]]:
        state = self._state
        table: dict[str, dict[str, Handler]] = {
            "/health": {"GET": self._health},
            "/ping": {"GET": self._health, "POST": self._health},
            "/version": {"GET": lambda _: ok({"version": state.config.version})},
            "/load": {"GET": lambda _: ok({"server_load": state.counters.running})},
            "/metrics": {"GET": self._metrics},
            "/tokenize": {"POST": self._tokenize},
            "/v1/models": {"GET": self._list},
            "/v1/completions": {"POST": partial(generate, state, chat=False)},
            "/v1/chat/completions": {"POST": partial(generate, state, chat=True)},
            "/v1/embeddings": {"POST": partial(embeddings, state)},
        }
        if state.config.runtime_lora:
            table["/v1/load_lora_adapter"] = {"POST": partial(adapter_routes.load, state)}
            table["/v1/unload_lora_adapter"] = {"POST": partial(adapter_routes.unload, state)}
            table["/adapters"] = {"POST": partial(adapter_routes.load_twin, state)}
        if state.config.dev_mode:
            table["/reset_prefix_cache"] = {"POST": self._reset_prefix_cache}
            table["/collective_rpc"] = {"POST": self._collective_rpc}
            table["/sleep"] = {"POST": self._sleep}
            table["/wake_up"] = {"POST": self._wake_up}
            table["/is_sleeping"] = {"GET": self._is_sleeping}
        return table

    # --- small handlers

    def _health(self, _request: Request) -> Response:
        return Response(503 if self._state.engine.dead else 200)

    def _metrics(self, _request: Request) -> Response:
        state = self._state
        return Response(200, metrics.render(state.engine, state.counters, time.time()), metrics.CONTENT_TYPE)

    def _list(self, _request: Request) -> Response:
        state = self._state
        match state.faults.disguise:
            case "empty-object":
                return ok({})
            case "empty-list":
                return ok({"object": "list", "data": []})
            case "truncated-json":
                return Response(200, b'{"object":"list","data":[{"id":', "application/json")
            case "html-error":
                return Response(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", _HTML)
        key = (int(time.time()), state.engine.started_at, state.engine.revision, state.base_names)
        if self._models is None or self._models[0] != key:
            self._models = key, ok(model_list(state.engine, state.base_names, state.identity()))
        return self._models[1]

    def _tokenize(self, request: Request) -> Response:
        shape = self._state.config.error_shape
        body = json_object(request)
        if isinstance(body, Refusal):
            return error(body, shape)
        prompts = prompts_of(body.get("prompt"))
        if not prompts:
            return error(invalid("missing", "body.prompt", "Field required", body), shape)
        tokens = prompts[0].tokens
        numbers = [sum(token.encode("utf-8", "surrogatepass")) % 512 for token in tokens]
        strings = list(tokens) if body.get("return_token_strs") else None
        longest = self._state.config.max_model_len
        return ok({"count": len(tokens), "max_model_len": longest, "tokens": numbers, "token_strs": strings})

    def _sleep(self, request: Request) -> Response | Later:
        """Put the engine to sleep: running requests are aborted, or finished first with `mode=wait`; later ones wait.

        As in vLLM, the route exists without `--enable-sleep-mode` too. That it fails then stands for a GPU that frees
        nothing.
        """
        if not self._state.config.enable_sleep_mode:
            refusal = Refusal(500, "InternalServerError", "Sleep mode is not enabled.")
            return error(refusal, self._state.config.error_shape)
        query = parse_qs(request.query)
        given = query.get("level", ["1"])[-1]
        if not _LEVEL.match(given):
            refusal = invalid("int_parsing", "query.level", "Input should be a valid integer from 0 to 2", given)
            return error(refusal, self._state.config.error_shape)
        faults = self._state.faults
        if faults.sleep_hangs:
            return control.never
        waits = query.get("mode", ["abort"])[-1] == "wait" and not faults.sleep_aborts
        if faults.sleep_delay or (waits and not self._state.idle.is_set()):
            return partial(self._sleep_later, int(given), waits)
        return self._fall_asleep(int(given))

    async def _sleep_later(self, level: int, waits: bool) -> Response:
        state = self._state
        state.awake.clear()
        try:
            if waits:
                await state.idle.wait()
            await state.sleep(state.faults.sleep_delay)
        except asyncio.CancelledError:
            state.awake.set()
            raise
        return self._fall_asleep(level)

    def _fall_asleep(self, level: int) -> Response:
        state = self._state
        state.engine.sleep(level)
        state.awake.clear()
        if level and not state.faults.sleep_keeps_memory:
            state.memory.drop()
        return ok({"status": "sleeping", "level": level})

    def _wake_up(self, request: Request) -> Response | Later:
        tags = parse_qs(request.query).get("tags", [])
        if self._state.faults.wake_fails:
            refusal = Refusal(500, "InternalServerError", "The engine does not wake up.")
            return error(refusal, self._state.config.error_shape)
        if self._state.faults.wake_delay:
            return partial(self._wake_later, tags)
        return self._wake(tags)

    async def _wake_later(self, tags: list[str]) -> Response:
        await self._state.sleep(self._state.faults.wake_delay)
        return self._wake(tags)

    def _wake(self, tags: list[str]) -> Response:
        state = self._state
        slept = state.engine.sleep_level is not None
        if state.engine.wake(frozenset(tags) if tags else PARTS):
            state.memory.take()
            if slept and state.faults.wake_wrong_answer:
                state.engine.corrupt()
            state.awake.set()
        return ok({"status": "awake", "tags": tags or None})

    def _is_sleeping(self, _request: Request) -> Response:
        return ok({"is_sleeping": self._state.engine.sleep_level is not None})

    def _reset_prefix_cache(self, _request: Request) -> Response:
        self._state.engine.reset_prefix_cache()
        return Response(200)

    def _collective_rpc(self, request: Request) -> Response:
        body = json_object(request)
        if isinstance(body, Refusal):
            return error(body, self._state.config.error_shape)
        if body.get("method") == "reload_weights":
            self._state.engine.reload_weights()
        return ok({"results": [None]})
