"""The errors of a port that cannot be freed: what holds it, and what to do about it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from garrison.base.errors import PortError, PortForeignError, PortOtherUserError, PortUnattributableError
from garrison.base.redaction import shown_command
from garrison.preflight.report import PreflightRequest
from garrison.processes.process import Process

if TYPE_CHECKING:
    from garrison.preflight.holders import PortVerdict

__all__ = ["holder_details", "refusal"]


def refusal(verdict: "PortVerdict", request: PreflightRequest) -> PortError:
    """The error for a verdict that is neither `free` nor `ours`."""
    where = ", ".join(str(listener) for listener in verdict.listeners)
    who = "; ".join(f"pid {one.id.pid} (uid {one.uid}): {shown_command(one.argv)}" for one in verdict.roots)
    details = holder_details(verdict.roots, verdict.listeners)
    if verdict.kind == "other-user":
        return PortOtherUserError(
            f"{where} is held by another user's {_known_as(verdict)}: {who}",
            hint="Ask its user to stop it, or set VLLM_ALLOW_OTHER_UID_KILL=1.",
            details=details,
        )
    if verdict.kind == "unattributable":
        owners = sorted({listener.uid for listener in verdict.listeners})
        return PortUnattributableError(
            f"{where} has a listener, and no process that holds it can be seen"
            + (f" (its socket belongs to uid {', '.join(map(str, owners))})" if min(owners) >= 0 else ""),
            hint="Run as the user that owns it or as root, relax hidepid on /proc, or free the port yourself. "
            "In a container, the listener may run outside of it.",
            details=details | {"uids": owners, "could_scan": False},
        )
    if verdict.kind == "above-us":
        return PortForeignError(
            f"{where} is held by a server that this command runs under: {who}",
            hint="Run it outside that server, or choose another port.",
            details=details,
        )
    if any(one.exe is None for one in verdict.roots):
        return PortForeignError(
            f"{where} is held by a process whose program cannot be identified: {who}",
            hint="Ask its user to stop it, choose another port (--port, VLLM_PORT), or run as that user or as root.",
            details=details,
        )
    what = "a process that is not vLLM" + ("" if request.records is None else " and was not started by Garrison")
    return PortForeignError(
        f"{where} is held by {what}: {who}",
        hint="Stop it, or choose another port (--port, VLLM_PORT). If it is a launcher of vLLM, name it in "
        "VLLM_PROCESS_SIGNATURES.",
        details=details,
    )


def _known_as(verdict: "PortVerdict") -> str:
    """`vLLM` only where each process is known to be one: the user's own signatures and records name other servers."""
    from garrison.preflight.classify import SIMULATOR, signature_of

    signatures = {signature_of(one.exe, one.argv) for one in verdict.roots}
    return "server" if signatures & {None, SIMULATOR} else "vLLM"


def holder_details(processes: Iterable[Process], listeners: Iterable[object]) -> dict[str, list[object]]:
    """Details for the JSON of a failure. `pids`, `cmdlines` and `uids` are parallel lists."""
    listed = tuple(processes)
    return {
        "pids": [one.id.pid for one in listed],
        "cmdlines": [shown_command(one.argv) for one in listed],
        "uids": [one.uid for one in listed],
        "blocked_roots": [one.id.pid for one in listed],
        "listeners": [str(listener) for listener in listeners],
    }
