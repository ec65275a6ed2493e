"""Failures of operations on a target, as values. The codes are those of the formae plugin contract."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from garrison.base.redaction import redacted
from garrison.fleet.values.cures import is_silent
from garrison.fleet.values.observation import Cause

__all__ = [
    "GAVE_UP",
    "Failure",
    "FailureCode",
    "cause_and_detail",
    "code_of_unknown",
    "same_failure",
    "timed_out",
    "unknown_message",
]


class FailureCode(StrEnum):
    """Kind of failure. A `recoverable` one is retried, within a budget."""

    NETWORK_FAILURE = "NetworkFailure"
    SERVICE_TIMEOUT = "ServiceTimeout"
    SERVICE_INTERNAL_ERROR = "ServiceInternalError"
    THROTTLING = "Throttling"
    NOT_STABILIZED = "NotStabilized"
    INVALID_REQUEST = "InvalidRequest"
    INVALID_CREDENTIALS = "InvalidCredentials"
    ACCESS_DENIED = "AccessDenied"
    NOT_FOUND = "NotFound"
    ALREADY_EXISTS = "AlreadyExists"
    RESOURCE_CONFLICT = "ResourceConflict"
    NOT_UPDATABLE = "NotUpdatable"
    SERVICE_LIMIT_EXCEEDED = "ServiceLimitExceeded"

    @property
    def recoverable(self) -> bool:
        return self in _RECOVERABLE


_RECOVERABLE = frozenset(
    {
        FailureCode.NETWORK_FAILURE,
        FailureCode.SERVICE_TIMEOUT,
        FailureCode.SERVICE_INTERNAL_ERROR,
        FailureCode.THROTTLING,
        FailureCode.NOT_STABILIZED,
    }
)

_UNKNOWN = {
    Cause.TIMEOUT: FailureCode.SERVICE_TIMEOUT,
    Cause.UNAUTHORIZED: FailureCode.INVALID_CREDENTIALS,
    Cause.FORBIDDEN: FailureCode.ACCESS_DENIED,
    Cause.SERVER_ERROR: FailureCode.SERVICE_INTERNAL_ERROR,
}


def code_of_unknown(cause: Cause | None) -> FailureCode:
    """Return the failure code for an operation on a target that is unknown because of `cause`."""
    return _UNKNOWN.get(cause, FailureCode.NETWORK_FAILURE) if cause else FailureCode.NETWORK_FAILURE


def unknown_message(target: str, cause: Cause, detail: str) -> str:
    """Return the sentence for a target that is unknown because of `cause`."""
    return f"target {target} {'is out of reach' if is_silent(cause) else 'cannot be used'} ({cause}): {detail}"


def cause_and_detail(target: str, message: str) -> str:
    """Return `cause: detail` of a message that `unknown_message` made; any other message as it is."""
    for words in ("is out of reach", "cannot be used"):
        head = f"target {target} {words} ("
        if message.startswith(head):
            return message.removeprefix(head).replace("): ", ": ", 1)
    return message


GAVE_UP = " (gave up: "
"""Ends the message of a failure that was retried; the reason follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The reason why an action was refused or failed.

    Attributes:
        message: what happened; safe to display.
        hint: the next step.
        recoverable: whether a retry can help. Usually that of the code, but some errors are known to persist (a 500
            because the rank is too high).
        retry_after: seconds that the server asked to wait.
        cause: why the target is unknown, if that is the reason.
    """

    code: FailureCode
    message: str
    hint: str | None = None
    recoverable: bool = False
    retry_after: float | None = None
    cause: Cause | None = None

    def __post_init__(self) -> None:
        # It is kept and shown for long, and may hold what a server said.
        object.__setattr__(self, "message", redacted(self.message))

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_json` reads back an equal failure."""
        body: dict[str, Any] = {"code": str(self.code), "message": self.message, "recoverable": self.recoverable}
        if self.hint:
            body["hint"] = self.hint
        if self.cause:
            body["cause"] = str(self.cause)
        if self.retry_after is not None:
            body["retry_after"] = self.retry_after
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Failure":
        return cls(
            code=FailureCode(body["code"]),
            message=body["message"],
            hint=body.get("hint"),
            recoverable=body["recoverable"],
            retry_after=body.get("retry_after"),
            cause=Cause(body["cause"]) if body.get("cause") else None,
        )


def same_failure(told: Mapping[str, Any], failure: Failure) -> bool:
    """Return whether `told`, a failure as JSON, is `failure` again; how often it was retried makes no difference."""
    was, now = (message.partition(GAVE_UP)[0] for message in (str(told.get("message", "")), failure.message))
    return told.get("code") == failure.code and was == now


def timed_out(told: Mapping[str, Any] | None) -> bool:
    """Return whether `told`, a failure as JSON, says that a target which answers did not answer a request in time."""
    return told is not None and told.get("code") == FailureCode.SERVICE_TIMEOUT and "cause" not in told
