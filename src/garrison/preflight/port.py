"""The port's half of the preflight: look, refuse or stop what holds it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from garrison.base.errors import (
    InvalidError,
    PortError,
    PortForeignError,
    PortOtherUserError,
    PortStuckError,
    PortUnattributableError,
)
from garrison.preflight.addresses import Address
from garrison.preflight.holders import PortVerdict, find_holders, judge_holders
from garrison.preflight.listeners import ScanError, conflicting
from garrison.preflight.machine import Machine
from garrison.preflight.processes import Process
from garrison.preflight.reclaim import Stopped, stop_trees
from garrison.preflight.redact import shown_command
from garrison.preflight.report import PreflightRequest

__all__ = ["Finding", "line_of", "look_at_port", "resolve_host", "stop_holders"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found on the port; `verdict.kind` is `free` or `ours`, everything else was raised."""

    addresses: tuple[Address, ...]
    verdict: PortVerdict
    could_scan: bool = True


def resolve_host(request: PreflightRequest, machine: Machine) -> tuple[Address, ...]:
    """The addresses of the request's host. Raises InvalidError when the name means nothing here."""
    try:
        return machine.sockets.resolve(request.host)
    except OSError as error:
        raise InvalidError(
            f"the host {request.host!r} cannot be resolved: {error}",
            hint="Set VLLM_HOST to an address of this machine, or to 0.0.0.0 for all of them.",
        ) from None


def look_at_port(request: PreflightRequest, machine: Machine) -> Finding:
    """Find who holds the port and judge it.

    Raises:
        InvalidError: the host cannot be resolved.
        PortForeignError, PortOtherUserError, PortUnattributableError: it may not be stopped.
    """
    addresses = resolve_host(request, machine)
    try:
        holders, snapshot = find_holders(addresses, request.port, sockets=machine.sockets, processes=machine.processes)
    except ScanError as error:
        if machine.sockets.can_bind(addresses, request.port):
            return Finding(addresses, PortVerdict("free"), could_scan=False)
        raise PortUnattributableError(
            f"port {request.port} is taken, and the listeners of this machine cannot be read: {error}",
            hint="Run as the administrator, or free the port yourself.",
            details=_details((), ()) | {"could_scan": False},
        ) from None
    verdict = judge_holders(
        holders,
        own_uid=machine.processes.own_uid(),
        own_line=line_of(machine.processes.own_pid(), snapshot),
        signatures=request.signatures,
        allow_other_uid=request.allow_other_uid_kill,
    )
    if verdict.kind not in ("free", "ours"):
        raise _refusal(verdict, request)
    return Finding(addresses, verdict)


def stop_holders(request: PreflightRequest, finding: Finding, machine: Machine) -> Stopped:
    """Stop the trees that hold the port and see it free.

    Raises:
        PortStuckError: it still listens.
        PortOtherUserError: the system does not let us signal one of the processes.
    """

    def in_the_way() -> bool:
        return bool(conflicting(finding.addresses, machine.sockets.listeners(request.port)))

    roots = finding.verdict.roots
    for root in roots:
        machine.say(f"stopping pid {root.id.pid}, which holds port {request.port}: {shown_command(root.argv)}")
    try:
        stopped = stop_trees(
            (root.id for root in roots),
            processes=machine.processes,
            is_free=lambda: not in_the_way(),
            timeout=request.stop_timeout,
            clock=machine.clock,
            say=machine.say,
        )
    except PermissionError:
        raise PortOtherUserError(
            f"port {request.port} is held by processes this user may not signal",
            hint="Run as their user or as root.",
            details=_details(roots, finding.verdict.listeners),
        ) from None
    if stopped.free:
        return stopped
    holders, _ = find_holders(finding.addresses, request.port, sockets=machine.sockets, processes=machine.processes)
    present = tuple(root for holder in holders for root in holder.roots) or roots
    raise PortStuckError(
        f"port {request.port} is still held {request.stop_timeout:g} s after the stop",
        hint="Raise VLLM_STOP_TIMEOUT, or look at the processes named: one may be restarted by a supervisor.",
        details=_details(present, (holder.listener for holder in holders))
        | {"stopped_roots": [root.id.pid for root in roots], "survivors": [one.pid for one in stopped.survivors]},
    )


def line_of(pid: int, snapshot: Mapping[int, Process]) -> tuple[int, ...]:
    """`pid` and its ancestors."""
    line: list[int] = []
    while pid in snapshot and pid not in line:
        line.append(pid)
        pid = snapshot[pid].parent
    return tuple(line)


def _refusal(verdict: PortVerdict, request: PreflightRequest) -> PortError:
    where = ", ".join(str(listener) for listener in verdict.listeners)
    who = "; ".join(f"pid {one.id.pid} (uid {one.uid}): {shown_command(one.argv)}" for one in verdict.roots)
    details = _details(verdict.roots, verdict.listeners)
    if verdict.kind == "other-user":
        return PortOtherUserError(
            f"{where} is held by another user's vLLM: {who}",
            hint="Ask its user to stop it, or set VLLM_ALLOW_OTHER_UID_KILL=1.",
            details=details,
        )
    if verdict.kind == "unattributable":
        owners = sorted({listener.uid for listener in verdict.listeners})
        return PortUnattributableError(
            f"{where} listens, and no process can be seen to hold it"
            + (f" (its socket belongs to uid {', '.join(map(str, owners))})" if min(owners) >= 0 else ""),
            hint="Run as the user that owns it or as root, relax hidepid on /proc, or free the port yourself; "
            "in a container the listener may live outside it.",
            details=details | {"uids": owners, "could_scan": False},
        )
    if verdict.kind == "above-us":
        return PortForeignError(
            f"{where} is held by a server that this command runs under: {who}",
            hint="Run it from outside that server, or choose another port.",
            details=details,
        )
    return PortForeignError(
        f"{where} is held by a process that is not vLLM: {who}",
        hint=f"Stop it, or choose another port (VLLM_PORT={min(request.port + 1, 65535)}). If it is a launcher of "
        "vLLM, name it in VLLM_PROCESS_SIGNATURES.",
        details=details,
    )


def _details(processes: Iterable[Process], listeners: Iterable[object]) -> dict[str, list[object]]:
    """`pids`, `cmdlines` and `uids` run in parallel."""
    listed = tuple(processes)
    return {
        "pids": [one.id.pid for one in listed],
        "cmdlines": [shown_command(one.argv) for one in listed],
        "uids": [one.uid for one in listed],
        "blocked_roots": [one.id.pid for one in listed],
        "listeners": [str(listener) for listener in listeners],
    }
