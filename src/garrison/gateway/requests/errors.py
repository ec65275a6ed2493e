"""A failure as an HTTP answer, in the shape that the clients of each API read: OpenAI's, or Anthropic's."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from garrison.access.credentials import CHALLENGE
from garrison.base.errors import DeniedError, GarrisonError, InvalidError
from garrison.base.output.plain_text import plain

__all__ = ["Answer", "LoopError", "StoppedError", "TooLargeError", "error_answer", "speaks_anthropic"]

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers without Content-Length, body."""

_OPENAI = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "internal_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
_ANTHROPIC = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_LONGEST = 2000
_JSON = (b"content-type", b"application/json")
_CHALLENGE = (b"www-authenticate", CHALLENGE.encode())
_encode = msgspec.json.Encoder().encode


class TooLargeError(InvalidError):
    """A request over a limit of its size."""

    http_status = 413


class StoppedError(DeniedError):
    """A request that an operator has ended. After most other codes the clients would send it again by themselves."""

    http_status = 499


def speaks_anthropic(target: bytes) -> bool:
    """Whether the clients of a path read Anthropic's errors, also where the path itself is the mistake."""
    return target.startswith(b"/v1/messages")


class LoopError(InvalidError):
    """A request that this server has sent itself."""

    http_status = 508


def error_answer(error: GarrisonError, *, anthropic: bool = False) -> Answer:
    """Return the answer for `error`. Its details become headers and, for a start under way, `loading`."""
    status = error.http_status
    text = _shown(error.message if error.hint is None else f"{error.message}. {error.hint}")
    fallback = "invalid_request_error" if status < 500 else "api_error" if anthropic else "server_error"
    kind = (_ANTHROPIC if anthropic else _OPENAI).get(status, fallback)
    told: dict[str, Any] = {"type": kind, "message": text}
    body: dict[str, Any] = {"type": "error", "error": told} if anthropic else {"error": told}
    if not anthropic:
        told |= {"param": None, "code": error.code}
    if "loading" in error.details:
        body["loading"] = _cleaned(error.details["loading"])
    headers = [_JSON]
    if (seconds := error.details.get("retry_after", 1 if status in (429, 503) else None)) is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(seconds))))
    if status == 401:
        headers.append(_CHALLENGE)
    return status, headers, _encode(body)


def _shown(text: str) -> str:
    return plain(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def _cleaned(value: Any) -> Any:
    """The same with every text through the gate: an engine's log has a say in what is reported about its start."""
    if isinstance(value, str):
        return _shown(value)
    if isinstance(value, Mapping):
        return {_shown(str(name)): _cleaned(one) for name, one in value.items()}
    return [_cleaned(one) for one in value] if isinstance(value, list | tuple) else value
