"""Probes a server's capabilities over an open connection. A request that fails leaves None."""

import json
import re
from collections.abc import Iterable

from garrison.fleet.values.observation import Capabilities
from garrison.net.transport import Answer, Connection, TransportError

__all__ = ["capabilities_from", "probe_capabilities"]

_PATHS = ("/health", "/version", "/v1/load_lora_adapter", "/metrics")
# A server may send megabytes of anything: each of these reads a line once.
_START = re.compile(r"^process_start_time_seconds(?:\{[^}\n]*\})? (\S+)", re.MULTILINE)
_LABELLED = re.compile(r"^(vllm:lora_requests_info|vllm:cache_config_info)\{(.*)\} ", re.MULTILINE)
_LABEL = re.compile(r'\b(\w+)="((?:[^"\\]|\\.)*)"')


async def probe_capabilities(connection: Connection, timeout: float) -> Capabilities:
    """Request health, version, the LoRA routes and metrics, each within `timeout` seconds.

    After the first request without an answer the rest are skipped: the server has just answered with its list, so
    either the next observation probes it again, or the target becomes unknown.
    """
    answers: dict[str, Answer] = {}
    for path in _PATHS:
        try:
            answers[path] = await connection.request("GET", path, timeout=timeout)
        except TransportError:
            break
    return capabilities_from(*(answers.get(path) for path in _PATHS))


def capabilities_from(
    health: Answer | None, version: Answer | None, load_route: Answer | None, metrics: Answer | None
) -> Capabilities:
    """Interpret the answers. Pure.

    Args:
        load_route: answer to a GET of the load route: 405 if the route exists, 404 if it does not.
    """
    text = metrics.body.decode("utf-8", "replace") if metrics is not None and metrics.status == 200 else ""
    labels = {family: dict(_LABEL.findall(found)) for family, found in _LABELLED.findall(text)}
    caching = labels.get("vllm:cache_config_info", {}).get("enable_prefix_caching")
    return Capabilities(
        version=_version(version),
        healthy=None if health is None else health.status == 200,
        # Any other status, such as 401, does not tell whether the route exists.
        lora_routes=None if load_route is None else {405: True, 404: False}.get(load_route.status),
        max_loras=_count(labels.get("vllm:lora_requests_info", {}).get("max_lora")),
        prefix_caching={"True": True, "False": False}.get(caching or ""),
        started_at=_start(_START.findall(text)),
    )


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
