"""The errors of a port that nothing listens on, and that cannot be bound all the same."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from garrison.base.errors import InvalidError, PortError, PortForeignError, PortUnattributableError
from garrison.base.redaction import shown_command
from garrison.preflight.holders import Holder
from garrison.preflight.refusal import holder_details
from garrison.preflight.report import PreflightRequest

__all__ = ["in_use", "not_for_this_user"]

_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_FIRST_UNPRIVILEGED = 1024
_MOST_SHOWN = 3


def in_use(request: PreflightRequest, holders: Sequence[Holder]) -> PortError:
    """The error for a port that is the local end of connections. None of them is a server, so none is stopped.

    Args:
        holders: the connections; none where the system lists none.
    """
    port, ports = request.port, _numbers(_OUTGOING)
    outgoing = len(ports) == 2 and ports[0] <= port <= ports[1]
    kind = "an outgoing connection" if outgoing else "a connection"
    other = f"Choose a port outside {ports[0]} to {ports[1]}, which the system gives to outgoing connections."
    hint = other if outgoing else "Wait for its end, or choose another port (--port, VLLM_PORT)."
    owned = [holder for holder in holders if holder.roots]
    details = holder_details(
        {root.id.pid: root for holder in owned for root in holder.roots}.values(),
        [holder.listener for holder in holders],
    )
    if owned:
        who = "; ".join(
            f"{holder.listener} of pid {root.id.pid} (uid {root.uid}): {shown_command(root.argv)}"
            for holder in owned[:_MOST_SHOWN]
            for root in holder.roots
        )
        return PortForeignError(
            f"port {port} has no listener, but is the local port of {kind}: {who}", hint=hint, details=details
        )
    if holders:
        which = ", ".join(str(holder.listener) for holder in holders[:_MOST_SHOWN])
        ended = all(holder.listener.inode == 0 for holder in holders)
        state = "has ended and that the system keeps for a minute" if ended else "no visible process has"
        return PortUnattributableError(
            f"port {port} has no listener, but is the local port of {kind} that {state}: {which}",
            hint=f"Run this again in a minute. {other if outgoing else ''}".strip() if ended else hint,
            details=details | {"could_scan": False},
        )
    return PortUnattributableError(
        f"port {port} cannot be bound: {os.strerror(errno.EADDRINUSE).lower()}; no socket that holds it can be seen",
        hint="Choose another port (--port, VLLM_PORT), or run this as root to see what holds it.",
        details=details | {"could_scan": False},
    )


def not_for_this_user(request: PreflightRequest, error: OSError) -> InvalidError:
    """The error for an address that is not this machine's, or a port that this user may not bind."""
    host, port = request.host, request.port
    details = {"errno": errno.errorcode.get(error.errno or 0, "")}
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidError(
            f"host {host!r} is not an address of this machine, so no server can listen there",
            hint="Choose one of its own, 127.0.0.1, or 0.0.0.0 for all of them (--host, VLLM_HOST).",
            details=details,
        )
    first = next(iter(_numbers(_UNPRIVILEGED)), _FIRST_UNPRIVILEGED)
    if error.errno == errno.EACCES and port < first:
        return InvalidError(
            f"port {port} is reserved: this user may bind ports from {first} on",
            hint="Choose another port (--port, VLLM_PORT), or run the engine with CAP_NET_BIND_SERVICE.",
            details=details,
        )
    return InvalidError(
        f"{host} port {port} cannot be bound: {error.strerror}",
        hint="Choose another address or port (--host, --port), or ask the administrator of this machine.",
        details=details,
    )


def _numbers(path: Path) -> tuple[int, ...]:
    try:
        return tuple(map(int, path.read_text(encoding="ascii").split()))
    except (OSError, ValueError):
        return ()
