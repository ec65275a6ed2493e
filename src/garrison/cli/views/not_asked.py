"""Next steps for targets that could not be observed.

A fault on our side, such as a missing secret or certificate, says nothing about the target: it was not contacted.
"""

from garrison.fleet.values.cures import cure_of
from garrison.fleet.values.observation import Cause

__all__ = ["detail_of", "is_local", "local_hint", "next_step"]

_PREFIX = f"{Cause.LOCAL}: "


def is_local(cause: str | None) -> bool:
    """Return whether a cause of unknown lies on our side."""
    return cause == Cause.LOCAL


def detail_of(said: str) -> str | None:
    """Return the fault in `local: api_key: …`, or None if `said` names another cause."""
    return said.removeprefix(_PREFIX) if said.startswith(_PREFIX) else None


def local_hint(detail: str, place: str | None = None) -> str:
    """Return the next step for a fault on our side; `place` is the server that has it, None for this machine."""
    if place is not None:
        return f"fix it on the server, {place}; the target itself may be fine"
    if detail.endswith(" is not set"):
        return "export it, or have the manifest read it from a file or a command"
    return "fix it on this machine; the target itself may be fine"


def next_step(said: str, place: str | None = None) -> str | None:
    """Return the next step for `cause: detail`, as in `local_hint`; None if there is none."""
    cause, _, detail = said.partition(": ")
    return local_hint(detail, place) if is_local(cause) else cure_of(cause, detail)
