"""Interprets vLLM's answers. No I/O.

vLLM 0.32 nests error fields below `error`. Older versions put the same fields at the top level, and answer 400 both for
a name that is already loaded and for one that is not. A 404 without a vLLM error in its body means that the route does
not exist, and says nothing about an adapter.
"""

import json
import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from garrison.base.redaction import excerpt
from garrison.fleet.values.cures import cure_of
from garrison.fleet.values.failure import Failure, FailureCode, code_of_unknown
from garrison.fleet.values.observation import Cause, Sighting, cause_of
from garrison.fleet.vllm.model_list import retry_after
from garrison.net.transport import Answer, TransportError

__all__ = [
    "Completion",
    "completion_of",
    "load_failure",
    "load_timeout",
    "transport_failure",
    "unknown_failure",
    "unload_failure",
]

_LONGEST_MESSAGE = 400
_ALREADY = re.compile(r"already\s+(been\s+)?loaded", re.IGNORECASE)
_NO_SUCH = re.compile(r"cannot be found|not found|no adapter found|does not exist", re.IGNORECASE)
_NAME_OF_BASE = re.compile(r"conflicts with a served base model", re.IGNORECASE)
_RANK = re.compile(r"rank \S+ is greater than max_lora_rank", re.IGNORECASE)
_LORA_OFF = re.compile(r"LoRA is not enabled", re.IGNORECASE)
# Messages of vLLM, PEFT and safetensors about adapters that no retry can load, although vLLM answers 500.
_BROKEN_FILES = re.compile(
    r"safetensor|deserializing header|size mismatch|\bshapes?\b|target.modules|modules_to_save|lora rank|rank_pattern|"
    r"doesn't contain tensors|missing required configuration|adapter_config|PEFTHelper|does not (yet )?support|"
    r"is missing weight|vocabulary size|expecting value|\bMoE\b",
    re.IGNORECASE,
)
_START_WITH_LORA = "Start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment."
_RETRYABLE_CAUSES = frozenset({Cause.DNS, Cause.REFUSED, Cause.TIMEOUT, Cause.RESET, Cause.SERVER_ERROR})


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated token, and its log probability where the server gave it."""

    token: str
    logprob: float | None = None


def load_failure(answer: Answer, *, path: str, staged: bool, now: datetime) -> Failure | None:
    """Return why `POST /v1/load_lora_adapter` was refused; None for a 2xx, which does not yet prove the load.

    Args:
        staged: `path` is in one of Garrison's adapter stores.
    """
    if 200 <= answer.status < 300:
        return None
    said = _said(answer.body)
    message = said.message if said else ""
    if answer.status == 404:
        return _bad_path(message, path, staged) if said else _no_route(answer)
    if answer.status == 409 or (answer.status == 400 and _ALREADY.search(message)):
        return _permanent(FailureCode.ALREADY_EXISTS, f"the name is taken on the server: {message or 'HTTP 409'}")
    if answer.status == 400 and _NO_SUCH.search(message):
        return _bad_path(message, path, staged)
    if answer.status == 400 and _NAME_OF_BASE.search(message):
        return _permanent(FailureCode.INVALID_REQUEST, message, "Give the adapter another lora_name.")
    if answer.status >= 500 and (reason := _never_fits(message)) is not None:
        return reason
    return _general(answer, message, now)


def unload_failure(answer: Answer, *, now: datetime) -> Failure | None:
    """Return why `POST /v1/unload_lora_adapter` was refused; None for a 2xx.

    `NotFound` means that the name is not loaded; it is never returned for a route that does not exist.
    """
    if 200 <= answer.status < 300:
        return None
    said = _said(answer.body)
    message = said.message if said else ""
    if answer.status == 404 and said is None:
        return _no_route(answer)
    if answer.status in (400, 404) and _NO_SUCH.search(message):
        return _permanent(FailureCode.NOT_FOUND, message)
    return _general(answer, message, now)


def completion_of(answer: Answer, *, now: datetime) -> Completion | Failure:
    """Return the first token in an answer to `POST /v1/completions`.

    `NotStabilized` means that a proxy in front of the engine answered, or that the engine accepts no requests now.
    """
    if answer.status != 200:
        said = _said(answer.body)
        if answer.status == 404 and said is None:
            return _no_route(answer)
        failure = _general(answer, said.message if said else "", now)
        return replace(failure, code=FailureCode.NOT_STABILIZED) if answer.status in (502, 503) else failure
    body = _json(answer.body)
    try:
        choice = body["choices"][0]
        text = str(choice["text"])
    except (KeyError, IndexError, TypeError):
        return _permanent(FailureCode.INVALID_REQUEST, "answered 200 without a completion")
    return Completion(text, _first_logprob(choice.get("logprobs")))


def transport_failure(error: TransportError) -> Failure:
    """Return the failure for a request that got no complete answer."""
    cause = cause_of(error)
    code = FailureCode.SERVICE_TIMEOUT if cause is Cause.TIMEOUT else FailureCode.NETWORK_FAILURE
    retryable = cause in _RETRYABLE_CAUSES
    hint = cure_of(cause, error.detail)
    return Failure(code=code, message=f"{cause}: {error.detail}", hint=hint, recoverable=retryable, cause=cause)


def load_timeout(failure: Failure, seconds: float) -> Failure:
    """Return the failure of a load that was sent and not answered within the target's `load_timeout`."""
    message = f"the server did not finish the load within the target's load_timeout, {seconds:g} s"
    hint = "Raise the target's `load_timeout`; if its disk or network is slow, put the adapter nearer to it."
    return replace(failure, message=message, hint=hint)


def unknown_failure(seen: Sighting) -> Failure:
    """Return the failure for a target whose list was not believed."""
    assert seen.cause is not None
    return Failure(
        code=code_of_unknown(seen.cause),
        message=f"the target cannot be observed ({seen.cause}): {seen.detail}",
        hint=cure_of(seen.cause, seen.detail),
        recoverable=seen.cause in _RETRYABLE_CAUSES or seen.retry_after is not None,
        retry_after=seen.retry_after,
        cause=seen.cause,
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """An error from vLLM, in either of its shapes."""

    type: str
    message: str


def _general(answer: Answer, message: str, now: datetime) -> Failure:
    """Classify an answer by status. For 401 and 403 the server's message is omitted, since it may repeat the key."""
    status = answer.status
    told = f"HTTP {status}" + (f": {message}" if message else "")
    asked = retry_after(answer, now)
    match status:
        case 401:
            hint = cure_of(Cause.UNAUTHORIZED)
            return _permanent(FailureCode.INVALID_CREDENTIALS, "the server rejected the API key (HTTP 401)", hint)
        case 403:
            hint = cure_of(Cause.FORBIDDEN)
            return _permanent(FailureCode.ACCESS_DENIED, "the server denied permission (HTTP 403)", hint)
        case 429:
            return _recoverable(FailureCode.THROTTLING, told, asked)
        case 408 | 504:
            return _recoverable(FailureCode.SERVICE_TIMEOUT, told, asked)
        case _ if status >= 500:
            return _recoverable(FailureCode.SERVICE_INTERNAL_ERROR, told, asked)
        case _ if 300 <= status < 400:
            hint = cure_of(Cause.NOT_VLLM, str(status))
            return _permanent(FailureCode.INVALID_REQUEST, f"the server answered with a redirect (HTTP {status})", hint)
    return _permanent(FailureCode.INVALID_REQUEST, told)


def _never_fits(message: str) -> Failure | None:
    """Return the failure for a 500 that a retry cannot change; None for any other."""
    if _RANK.search(message):
        hint = "Restart vLLM with a larger --max-lora-rank, or use an adapter of a lower rank."
        return _permanent(FailureCode.INVALID_REQUEST, message, hint)
    if _LORA_OFF.search(message):
        return _permanent(FailureCode.INVALID_REQUEST, message, _START_WITH_LORA)
    if _BROKEN_FILES.search(message):
        hint = "The server cannot load these files; see vLLM's log, and rebuild the adapter or ask its author."
        return _permanent(FailureCode.INVALID_REQUEST, message, hint)
    return None


def _bad_path(message: str, path: str, staged: bool) -> Failure:
    if staged:
        hint = (
            f"{path} is in Garrison's adapter store. Either the server does not see that directory: give the target "
            "an `adapter_store:` that both sides see, or `adapter_store: none` to load from the declared path. Or its "
            "user may not read it, as a copy is no more readable than its source: make the source readable for it."
        )
    else:
        hint = f"{path} must exist on the server, with adapter_config.json and the weights in it."
    return _permanent(FailureCode.INVALID_REQUEST, message, hint)


def _no_route(answer: Answer) -> Failure:
    body = _json(answer.body)
    if isinstance(body, dict) and body.get("detail") == "Not Found":
        return _permanent(FailureCode.INVALID_REQUEST, "the server has no such route (HTTP 404)", _START_WITH_LORA)
    hint = f"Check for a proxy in front of vLLM, or a base_url of another server. Otherwise: {_START_WITH_LORA}"
    return _permanent(FailureCode.INVALID_REQUEST, "the server has no such route (HTTP 404, not from vLLM)", hint)


def _permanent(code: FailureCode, message: str, hint: str | None = None) -> Failure:
    return Failure(code=code, message=message, hint=hint)


def _recoverable(code: FailureCode, message: str, retry_after: float | None) -> Failure:
    return Failure(code=code, message=message, recoverable=True, retry_after=retry_after)


def _said(body: bytes) -> _Said | None:
    """Return the vLLM error in `body`; None if it contains none."""
    found = _json(body)
    if not isinstance(found, dict):
        return None
    inner = found.get("error", found)
    if not isinstance(inner, dict) or not isinstance(inner.get("message"), str):
        return None
    return _Said(str(inner.get("type", "")), _shown(inner["message"]))


def _shown(message: str) -> str:
    """Return the message as one line of bounded length, without control characters."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in message).split())
    return line if len(line) <= _LONGEST_MESSAGE else f"{excerpt(line, _LONGEST_MESSAGE - 1)}…"


def _first_logprob(given: Any) -> float | None:
    try:
        found = given["token_logprobs"][0]
        return float(found) if isinstance(found, int | float) else None
    except (KeyError, IndexError, TypeError, OverflowError):
        return None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
