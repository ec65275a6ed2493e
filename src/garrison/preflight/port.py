"""Looking at the port: free, held by the user's own server, or refused."""

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from garrison.base.errors import InvalidError, PortUnattributableError
from garrison.preflight.addresses import Address
from garrison.preflight.listeners import ScanError, conflicting
from garrison.preflight.machine import Machine
from garrison.preflight.policy import PortPolicy
from garrison.preflight.report import PreflightRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from garrison.preflight.holders import Holder, PortVerdict
    from garrison.processes.process import Process

__all__ = ["Finding", "look_at_port", "resolve_host"]


@dataclass(frozen=True)
class Finding:
    """What was found on the port. `verdict` is None when nothing conflicts, otherwise `ours`: others are raised."""

    addresses: tuple[Address, ...]
    verdict: "PortVerdict | None" = None
    could_scan: bool = True


def resolve_host(request: PreflightRequest, machine: Machine) -> tuple[Address, ...]:
    """The addresses of the request's host. Raises InvalidError when it does not resolve."""
    try:
        return machine.sockets.resolve(request.host)
    except OSError as error:
        raise InvalidError(
            f"host {request.host!r} cannot be resolved: {error}",
            hint="Set VLLM_HOST to an address of this machine, or to 0.0.0.0 for all of them.",
        ) from None


def look_at_port(request: PreflightRequest, policy: PortPolicy, machine: Machine) -> Finding:
    """Find the holders of the port and judge them.

    Raises:
        InvalidError: the host cannot be resolved or is not this machine's, or the port is not for this user.
        PortForeignError, PortOtherUserError, PortUnattributableError: what holds it may not be stopped.
    """
    addresses = resolve_host(request, machine)
    error = machine.sockets.bind_error(addresses, request.port)
    if error is not None and error.errno != errno.EADDRINUSE:
        from garrison.preflight.unbindable import not_for_this_user

        raise not_for_this_user(request, error)
    try:
        if not conflicting(addresses, machine.sockets.listeners(request.port)):
            if error is not None:
                _require_bindable(request, addresses, machine)
            return Finding(addresses)
        verdict = _verdict(request, policy, addresses, machine)
    except ScanError as unread:
        if error is None:
            return Finding(addresses, could_scan=False)
        raise PortUnattributableError(
            f"port {request.port} is in use, and the listeners of this machine cannot be read: {unread}",
            hint="Run as the administrator, or free the port yourself.",
            details={"pids": [], "cmdlines": [], "uids": [], "could_scan": False},
        ) from None
    if verdict.kind == "free":
        return Finding(addresses)
    if verdict.kind != "ours":
        from garrison.preflight.refusal import refusal

        raise refusal(verdict, request)
    return Finding(addresses, verdict)


def _require_bindable(request: PreflightRequest, addresses: tuple[Address, ...], machine: Machine) -> None:
    """See that the port can be bound after all, which it could not a moment ago, when nothing listened.

    Raises:
        PortForeignError, PortUnattributableError: it is the local port of a connection.
    """
    from garrison.preflight.holders import find_holders
    from garrison.preflight.unbindable import in_use

    holders, _ = find_holders(
        addresses, request.port, sockets=machine.sockets, processes=machine.processes, connected=True
    )
    if machine.sockets.bind_error(addresses, request.port) is not None:
        raise in_use(request, holders)


def _verdict(
    request: PreflightRequest, policy: PortPolicy, addresses: tuple[Address, ...], machine: Machine
) -> "PortVerdict":
    from garrison.preflight.holders import find_holders, judge_holders
    from garrison.processes.tree import line_of

    holders, snapshot = find_holders(addresses, request.port, sockets=machine.sockets, processes=machine.processes)
    return judge_holders(
        holders,
        own_uid=machine.processes.own_uid(),
        own_line=line_of(machine.processes.own_pid(), snapshot),
        signatures=request.signatures,
        allow_other_uid=policy.other_users,
        started=_started(request, holders, snapshot, machine),
    )


def _started(
    request: PreflightRequest, holders: "tuple[Holder, ...]", snapshot: "Mapping[int, Process]", machine: Machine
) -> "Mapping[int, str]":
    """Engine names by pid, for those holders that belong to an engine which Garrison started."""
    if request.records is None or not holders:
        return {}
    from garrison.preflight.engine_records import read_records
    from garrison.preflight.holders import started_engines

    records = read_records(request.records)
    for warning in records.warnings:
        machine.say(f"warning: {warning}")
    return started_engines(
        holders, {one: record.engine for record in records.engines for one in record.processes}, snapshot
    )
