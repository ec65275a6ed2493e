"""`/_sim`: inspect a simulator and change its faults while it runs. On the server's own port, for loopback peers only
(403 for others), without an API key, and not subject to faults itself.

    GET    /_sim            config, engine, faults and counters as JSON
    POST   /_sim/faults     {knob: value, ...}: changes the named knobs and restarts the script; answers all knobs
    DELETE /_sim/faults     back to the knobs it was started with
    POST   /_sim/restart    {"downtime": seconds?}: as if the process had been restarted: new start time, adapters that
                            were loaded at run time gone, caches empty, other connections reset; with a downtime, the
                            port is closed for that long
    POST   /_sim/kill       the engine dies, as when an adapter's files are gone

Faults: `garrison.sim.faults`. A bad value answers 400 with `{"error": message, "hint": ...}`.
"""

import asyncio
import ipaddress
import json
import math
from dataclasses import asdict
from typing import Any, NoReturn

from garrison.base.errors import InvalidError
from garrison.sim.api.bodies import dumps, ok
from garrison.sim.faults import faults_from_json, faults_to_json
from garrison.sim.http.messages import Request, Response
from garrison.sim.state import ServerState

__all__ = ["answer", "never", "snapshot"]


def answer(state: ServerState, request: Request) -> Response:
    """Answer one request to `/_sim`."""
    if not state.config.control or not _is_loopback(request.peer):
        return _problem(403, "The control endpoint answers loopback peers only.")
    match request.method, request.path:
        case "GET", "/_sim":
            return ok(snapshot(state))
        case "POST", "/_sim/faults":
            try:
                state.set_faults(faults_from_json(_json(request), state.faults))
            except InvalidError as error:
                return _problem(400, error.message, error.hint)
            return ok(faults_to_json(state.faults))
        case "DELETE", "/_sim/faults":
            state.set_faults(state.config.faults)
            return ok(faults_to_json(state.faults))
        case "POST", "/_sim/restart":
            body = _json(request) if request.body else {}
            downtime = body.get("downtime", 0) if isinstance(body, dict) else None
            if not isinstance(downtime, int | float) or not 0 <= downtime < math.inf:
                return _problem(400, "downtime must be seconds", '{"downtime": 0.5}')
            state.restart(float(downtime))
            return ok({"restarted": True})
        case "POST", "/_sim/kill":
            state.engine.dead = True
            state.died()
            return ok({"dead": True})
    return _problem(404, "The control endpoint has no such route.", "GET /_sim, POST /_sim/faults|restart|kill")


def snapshot(state: ServerState) -> dict[str, Any]:
    """Return state and counters, without secrets."""
    engine, counters, config = state.engine, state.counters, state.config
    return {
        "config": {
            "model": config.model,
            "names": list(config.names),
            "enable_lora": config.enable_lora,
            "runtime_lora": config.runtime_lora,
            "max_loras": config.max_loras,
            "max_cpu_loras": config.cpu_loras,
            "max_lora_rank": config.max_lora_rank,
            "prefix_caching": config.prefix_caching,
            "block_size": config.block_size,
            "error_shape": config.error_shape,
            "api_key": bool(config.api_keys),
            "seed": config.seed,
        },
        "engine": {
            "dead": engine.dead,
            "started_at": engine.started_at,
            "sleep_level": engine.sleep_level,
            "memory_bytes": state.memory.bytes,
            "adapters": [asdict(one) for one in engine.adapters.values()],
            "cpu_cached": engine.cpu_cached,
            "cached_blocks": engine.cached_blocks,
        },
        "faults": faults_to_json(state.faults) | {"used": list(state.used)},
        "counters": counters.to_json(),
    }


async def never() -> NoReturn:
    """Wait until the client closes the connection, which cancels the task."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("unreachable: nothing resolves this future")


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _json(request: Request) -> Any:
    try:
        return json.loads(request.body)
    except ValueError:
        return None


def _problem(status: int, message: str, hint: str | None = None) -> Response:
    return Response(status, dumps({"error": message, "hint": hint}), "application/json")
