"""Waiting for a start that goes on in the server."""

import time
from collections.abc import Callable
from typing import Literal

from garrison.base.errors import ConflictError, EngineTimeoutError, GarrisonError, InternalError
from garrison.cli.server.client import ServerClient, error_of
from garrison.cli.server.instance.calls import Instance, instance
from garrison.cli.server.views.instance_start import StartProgress

__all__ = ["judged", "start_error", "wait_started"]

_POLL_SECONDS = 0.2
_UNDER_WAY = ("starting", "restarting", "draining")


def judged(found: Instance) -> Literal["waits", "ready", "failed", "ended"]:
    """Where a start is: `ended` is one that was given up, by somebody else."""
    if "loading" in found or found["state"] in _UNDER_WAY:
        return "waits"
    if found["state"] == "running":
        return "ready"
    return "failed" if found["state"] == "failed" else "ended"


def start_error(found: Instance) -> GarrisonError:
    """The error of a start that did not end in `running`, as the server keeps it."""
    name, reason = found["name"], found.get("reason") or "no reason is known"
    if judged(found) == "ended":
        return ConflictError(
            f"instance {name} is {found['state']} again: {reason}", hint=f"garrison instance start {name}"
        )
    failure = found.get("failure")
    if not isinstance(failure, dict):
        return InternalError(f"instance {name} failed: {reason}", hint=f"garrison instance logs {name}")
    return error_of(failure.get("code"), f"instance {name}: {failure.get('error', reason)}", failure)


def wait_started(
    server: ServerClient,
    name: str,
    view: StartProgress,
    *,
    timeout: float | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Instance:
    """Wait until an instance runs, and return it.

    Args:
        timeout: seconds; None for as long as the server lets the start go on, which is while it makes progress.

    Raises:
        EngineTimeoutError: it takes longer. The start goes on.
        ConflictError: the start was given up.
        UnreachableError: the server does not answer any more.
        GarrisonError: the start failed; the cause.
    """
    begun = monotonic()
    while True:
        found = instance(server, name)
        match judged(found):
            case "ready":
                view.ready((found.get("costs") or {}).get("start_seconds"))
                return found
            case "waits":
                view.step(found.get("loading") or {"state": found["state"], "reason": found.get("reason")})
            case _:
                raise start_error(found)
        if timeout is not None and monotonic() - begun >= timeout:
            raise EngineTimeoutError(
                f"instance {name} is not ready after {timeout:g} s; its start goes on",
                hint=f"garrison instance stop {name}, to end it",
                details={"instance": name, "loading": found.get("loading")},
            )
        sleep(_POLL_SECONDS)
