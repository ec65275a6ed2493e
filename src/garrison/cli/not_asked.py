"""Targets that were not even asked, since something is wrong on this side: a secret or a certificate that is not there.
Their silence is ours."""

from garrison.fleet.observation import Cause

__all__ = ["detail_of", "is_local", "local_hint"]

_PREFIX = f"{Cause.LOCAL}: "


def is_local(cause: str | None) -> bool:
    return cause == Cause.LOCAL


def detail_of(said: str) -> str | None:
    """The fault in `local: api_key: …`; None where `said` tells of another cause."""
    return said.removeprefix(_PREFIX) if said.startswith(_PREFIX) else None


def local_hint(detail: str) -> str:
    """The next step."""
    if detail.endswith(" is not set"):
        return "export it, or let the manifest take it from a file or a command"
    return "fix it on this side; the target itself may be well"
