"""Answers of the gateway's own, in the shape that OpenAI clients read."""

import json
from collections.abc import Mapping
from typing import Any

from garrison.base.errors import (
    DeniedError,
    GarrisonError,
    InternalError,
    InvalidError,
    NotFoundError,
    NotReadyError,
    RateLimitedError,
    UnauthenticatedError,
)

__all__ = ["error_answer", "openai_error"]

_TYPES: tuple[tuple[type[GarrisonError], str], ...] = (
    (NotFoundError, "invalid_request_error"),
    (RateLimitedError, "rate_limit_error"),
    (UnauthenticatedError, "authentication_error"),
    (DeniedError, "permission_error"),
    (NotReadyError, "service_unavailable_error"),
    (InvalidError, "invalid_request_error"),
    (InternalError, "internal_error"),
)


def openai_error(error: GarrisonError) -> dict[str, Any]:
    """Return the body for `error`. `loading` says where a start is."""
    kind = next((name for cls, name in _TYPES if isinstance(error, cls)), "server_error")
    text = error.message if error.hint is None else f"{error.message}. {error.hint}"
    told: dict[str, Any] = {"message": text, "type": kind, "param": None, "code": error.code}
    body: dict[str, Any] = {"error": told}
    if "loading" in error.details:
        body["loading"] = error.details["loading"]
    return body


def error_answer(error: GarrisonError) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body."""
    headers = {"content-type": "application/json"}
    if (seconds := error.details.get("retry_after")) is not None:
        headers["retry-after"] = str(seconds)
    return error.http_status, headers, encoded(openai_error(error))


def encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()
