"""Probes a server's capabilities over an open connection. A request that fails leaves None."""

import json
import re
from collections.abc import Iterable

from garrison.fleet.values.observation import Capabilities
from garrison.net.transport import Answer, Connection, TransportError

__all__ = ["capabilities_from", "probe_capabilities"]

_LOAD = "/v1/load_lora_adapter"
_POSTED = f"POST {_LOAD}"
_PATHS = ("/health", "/version", _LOAD, "/metrics")
# A server may send megabytes of anything: each of these reads a line once.
_START = re.compile(r"^process_start_time_seconds(?:\{[^}\n]*\})? (\S+)", re.MULTILINE)
_LABELLED = re.compile(r"^(vllm:lora_requests_info|vllm:cache_config_info)\{(.*)\} ", re.MULTILINE)
_LABEL = re.compile(r'\b(\w+)="((?:[^"\\]|\\.)*)"')


async def probe_capabilities(connection: Connection, timeout: float) -> Capabilities:
    """Request health, version, the LoRA routes and metrics, each within `timeout` seconds.

    A proxy may pass on POST alone, so where a GET of the load route is answered with 404, a POST decides. Its body is
    empty, so it loads nothing.

    After the first request without an answer the rest are skipped: the server has just answered with its list, so
    either the next observation probes it again, or the target becomes unknown.
    """
    answers: dict[str, Answer] = {}
    for path in _PATHS:
        try:
            answers[path] = await connection.request("GET", path, timeout=timeout)
            if path == _LOAD and answers[path].status == 404:
                answers[_POSTED] = await connection.request("POST", _LOAD, timeout=timeout)
        except TransportError:
            break
    return capabilities_from(*(answers.get(path) for path in _PATHS), posted=answers.get(_POSTED))


def capabilities_from(
    health: Answer | None,
    version: Answer | None,
    load_route: Answer | None,
    metrics: Answer | None,
    *,
    posted: Answer | None = None,
) -> Capabilities:
    """Interpret the answers. Pure.

    Args:
        load_route: answer to a GET of the load route: 405 if the route exists, 404 if it does not, or a proxy says so.
        posted: answer to a POST to it with an empty body, which decides after a 404.
    """
    text = metrics.body.decode("utf-8", "replace") if metrics is not None and metrics.status == 200 else ""
    labels = {family: dict(_LABEL.findall(found)) for family, found in _LABELLED.findall(text)}
    caching = labels.get("vllm:cache_config_info", {}).get("enable_prefix_caching")
    return Capabilities(
        version=_version(version),
        healthy=None if health is None else health.status == 200,
        lora_routes=_lora_routes(load_route, posted),
        max_loras=_count(labels.get("vllm:lora_requests_info", {}).get("max_lora")),
        prefix_caching={"True": True, "False": False}.get(caching or ""),
        started_at=_start(_START.findall(text)),
    )


def _lora_routes(got: Answer | None, posted: Answer | None) -> bool | None:
    """Return whether the load route exists; None if the answers do not tell, such as 401."""
    if got is None or got.status == 405:
        return None if got is None else True
    if got.status != 404 or posted is None:
        return None
    # vLLM refuses the empty body with 400, and FastAPI's own handler with 422.
    return {400: True, 422: True, 404: False, 405: False}.get(posted.status)


def _version(answer: Answer | None) -> str | None:
    if answer is None or answer.status != 200:
        return None
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    found = body.get("version") if isinstance(body, dict) else None
    return found if isinstance(found, str) and len(found) <= 100 and found.isascii() and found.isprintable() else None


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,6}", text) else None


def _start(found: Iterable[str]) -> float | None:
    """Return the newest start time: the metric occurs once per registry, and processes may share a metrics page."""
    starts = []
    for text in found:
        try:
            value = float(text)
        except ValueError:
            continue
        if 0 < value < 1e11:
            starts.append(value)
    return max(starts, default=None)
