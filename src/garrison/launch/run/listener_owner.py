"""Whether what answers on an engine's port is that engine."""

from collections.abc import Collection

from garrison.engines.engine import Endpoint
from garrison.preflight.holders import find_holders
from garrison.preflight.listeners import ScanError
from garrison.preflight.machine import Machine

__all__ = ["stranger_on"]


def stranger_on(endpoint: Endpoint, ours: Collection[int], machine: Machine | None = None) -> int | None:
    """The pid of another process that holds the port; None if one of `ours` does, or it cannot be told.

    Reads all of `/proc`, once for each start, and may query DNS. Not for the event loop.
    """
    if not endpoint.needs_port:
        return None
    machine = machine or Machine(lambda _: None)
    try:
        addresses = machine.sockets.resolve(endpoint.host)
        holders, _ = find_holders(
            addresses, endpoint.health_port or endpoint.port, sockets=machine.sockets, processes=machine.processes
        )
    except (OSError, ScanError):
        return None
    pids = {root.id.pid for holder in holders if holder.listener.listening for root in holder.roots}
    if not pids or pids & set(ours):
        return None
    return min(pids)
