"""What vLLM's answers mean. No I/O.

Seen on 0.32, errors nested below `error`; older versions put the same fields at the top, and answer 400 both for a name
that is loaded already and for one that is not there. A 404 without a vLLM error in it is a route that does not exist,
and says nothing about an adapter.
"""

import json
import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from garrison.fleet.failure import Failure, FailureCode, code_of_unknown
from garrison.fleet.judge import retry_after
from garrison.fleet.observation import Cause, Sighting, cause_of
from garrison.net.transport import Answer, TransportError

__all__ = [
    "Completion",
    "completion_of",
    "load_failure",
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
    """Why `POST /v1/load_lora_adapter` was refused; None for a 2xx, which proves nothing yet.

    Args:
        staged: `path` is in an adapter store of ours.
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
    """Why `POST /v1/unload_lora_adapter` was refused; None for a 2xx. `NotFound` means that the name is not loaded, and
    is not given for a route that does not exist."""
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
    """The first token of an answer of `POST /v1/completions`. `NotStabilized` means that something before the engine
    answered, or that it takes no requests now."""
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
    """Describe a request that got no whole answer."""
    cause = cause_of(error)
    code = FailureCode.SERVICE_TIMEOUT if cause is Cause.TIMEOUT else FailureCode.NETWORK_FAILURE
    retryable = cause in _RETRYABLE_CAUSES
    return Failure(code=code, message=f"{cause}: {error.detail}", recoverable=retryable, cause=cause)


def unknown_failure(seen: Sighting) -> Failure:
    """The list could not be believed, so nothing can be said about the target."""
    assert seen.cause is not None
    return Failure(
        code=code_of_unknown(seen.cause),
        message=f"the target cannot be observed ({seen.cause}): {seen.detail}",
        recoverable=seen.cause in _RETRYABLE_CAUSES or seen.retry_after is not None,
        retry_after=seen.retry_after,
        cause=seen.cause,
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """vLLM's own error, whichever shape it came in."""

    type: str
    message: str


def _general(answer: Answer, message: str, now: datetime) -> Failure:
    """By status alone. What a server says when it refuses a key may repeat part of the key, so it is not shown."""
    status = answer.status
    told = f"HTTP {status}" + (f": {message}" if message else "")
    asked = retry_after(answer, now)
    match status:
        case 401:
            hint = "Check the target's api_key, and that its variable, file or command gives the right one."
            return _permanent(FailureCode.INVALID_CREDENTIALS, "the server refuses the API key (HTTP 401)", hint)
        case 403:
            hint = "The key is not allowed to do this; ask who runs the server, or give the target another api_key."
            return _permanent(FailureCode.ACCESS_DENIED, "the server forbids it (HTTP 403)", hint)
        case 429:
            return _recoverable(FailureCode.THROTTLING, told, asked)
        case 408 | 504:
            return _recoverable(FailureCode.SERVICE_TIMEOUT, told, asked)
        case _ if status >= 500:
            return _recoverable(FailureCode.SERVICE_INTERNAL_ERROR, told, asked)
        case _ if 300 <= status < 400:
            hint = "Give the target the base_url of vLLM itself; redirects are not followed, so that keys stay put."
            return _permanent(FailureCode.INVALID_REQUEST, f"answered with a redirect (HTTP {status})", hint)
    return _permanent(FailureCode.INVALID_REQUEST, told)


def _never_fits(message: str) -> Failure | None:
    """A 500 that will be one for ever."""
    if _RANK.search(message):
        hint = "Restart vLLM with a larger --max-lora-rank, or take an adapter of a lower rank."
        return _permanent(FailureCode.INVALID_REQUEST, message, hint)
    if _LORA_OFF.search(message):
        return _permanent(FailureCode.INVALID_REQUEST, message, _START_WITH_LORA)
    if _BROKEN_FILES.search(message):
        hint = "The server cannot load these files: make the adapter anew, or ask its maker. vLLM's log says more."
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
        hint = f"{path} must be a path as the server sees it, with adapter_config.json and the weights in it."
    return _permanent(FailureCode.INVALID_REQUEST, message, hint)


def _no_route(answer: Answer) -> Failure:
    body = _json(answer.body)
    if isinstance(body, dict) and body.get("detail") == "Not Found":
        return _permanent(FailureCode.INVALID_REQUEST, "the server has no such route (HTTP 404)", _START_WITH_LORA)
    hint = f"Is something in front of vLLM, or the base_url another server's? If not: {_START_WITH_LORA}"
    return _permanent(FailureCode.INVALID_REQUEST, "the server has no such route (HTTP 404, not vLLM's)", hint)


def _permanent(code: FailureCode, message: str, hint: str | None = None) -> Failure:
    return Failure(code=code, message=message, hint=hint)


def _recoverable(code: FailureCode, message: str, retry_after: float | None) -> Failure:
    return Failure(code=code, message=message, recoverable=True, retry_after=retry_after)


def _said(body: bytes) -> _Said | None:
    """None where the body is not an error of vLLM's."""
    found = _json(body)
    if not isinstance(found, dict):
        return None
    inner = found.get("error", found)
    if not isinstance(inner, dict) or not isinstance(inner.get("message"), str):
        return None
    return _Said(str(inner.get("type", "")), _shown(inner["message"]))


def _shown(message: str) -> str:
    """One line of bounded length, without control characters."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in message).split())
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[: _LONGEST_MESSAGE - 1]}…"


def _first_logprob(given: Any) -> float | None:
    try:
        found = given["token_logprobs"][0]
    except (KeyError, IndexError, TypeError):
        return None
    return float(found) if isinstance(found, int | float) else None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
