"""JSON bodies in vLLM's shapes."""

import json
import re
import time
from collections.abc import Sequence
from typing import Any

from garrison.sim.engine import Engine, Refusal
from garrison.sim.http.messages import Response

__all__ = ["detail", "dumps", "error", "error_body", "invalid", "model_list", "ok", "plain"]

JSON = "application/json"
_PATHS = (
    re.compile(r"/(?:home|usr|opt|var|tmp|root|lib|mnt|srv)(?:/[\w.\-]+)+"),
    re.compile(r"(?:/[\w\-]+)+/[\w\-]+\.\w+"),
)


_MESSAGE_CHARACTERS = 4096
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def dumps(value: Any) -> bytes:
    return _encode(value).encode("utf-8", "surrogatepass")


def ok(value: Any) -> Response:
    return Response(200, dumps(value), JSON)


def plain(text: str) -> Response:
    """Return a success of the adapter routes: text without a content type."""
    return Response(200, text.encode())


def detail(status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return an error of vLLM's web framework: unknown route, wrong method."""
    return Response(status, dumps({"detail": text}), JSON, headers)


def error(refusal: Refusal, shape: str) -> Response:
    return Response(refusal.status, error_body(refusal, shape), JSON)


def error_body(refusal: Refusal, shape: str) -> bytes:
    """Return vLLM's error body. `flat` is the older shape, without the `error` key around it."""
    inner = {
        "message": _sanitize(refusal.message),
        "type": refusal.type,
        "param": refusal.param,
        "code": refusal.status,
    }
    return dumps({"error": inner} if shape == "nested" else {"object": "error"} | inner)


def invalid(kind: str, where: str, text: str, given: Any, **context: str) -> Refusal:
    """Return the refusal of a body that does not fit the schema. Like vLLM, it describes containers instead of showing
    them."""
    shown = f"<{type(given).__name__} of {len(given)} items>" if isinstance(given, dict | list) else given
    entry = {"type": kind, "loc": where, "msg": text, "input": shown} | ({"ctx": context} if context else {})
    return Refusal(400, "Bad Request", f"1 validation error:\n  {entry}", where)


def model_list(engine: Engine, names: Sequence[str], permission: str) -> dict[str, Any]:
    """Return the body of `/v1/models`: the base's names, then the adapters, whose `parent` is the first of them."""
    created = int(time.time())
    config = engine.config

    def card(name: str, root: str, parent: str | None, length: int | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": length,
            "permission": [_permission(permission, created)],
        }

    bases = [card(name, config.model, None, config.max_model_len) for name in names]
    loaded = [card(one.name, one.path, one.parent or names[0], None) for one in engine.adapters.values()]
    return {"object": "list", "data": bases + loaded}


def _permission(identity: str, created: int) -> dict[str, Any]:
    return {
        "id": f"modelperm-{identity}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }


def _sanitize(message: str) -> str:
    message = message[:_MESSAGE_CHARACTERS]  # the patterns are quadratic in its length
    for pattern in _PATHS:
        message = pattern.sub("<path>", message)
    return message.strip()
