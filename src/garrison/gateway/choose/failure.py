"""How a request to a target failed, before or after bytes of the answer went to the client."""

from enum import StrEnum

__all__ = ["Failure", "failure_of"]


class Failure(StrEnum):
    CONNECT = "connect"
    """No connection came about, so the target has not seen the request."""
    LOST = "lost"
    """The connection ended before the answer did."""
    MALFORMED = "malformed"
    """What came is no HTTP response."""
    UNAVAILABLE = "unavailable"
    """The target answered with 502, 503 or 504."""
    TIMEOUT = "timeout"
    """It did not answer in time."""


_UNAVAILABLE = frozenset({502, 503, 504})


def failure_of(status: int) -> Failure | None:
    """Return the failure that a status stands for; None if the client gets the answer as it is."""
    return Failure.UNAVAILABLE if status in _UNAVAILABLE else None
