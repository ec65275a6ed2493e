"""Stopping the servers of a verdict, with their processes in the errors."""

import errno
import os
import sys
from pathlib import Path

from garrison.base.errors import PortOtherUserError, PortStuckError
from garrison.base.home import user_name
from garrison.base.identity import ProcessId
from garrison.base.redaction import shown_command
from garrison.preflight.holders import find_holders
from garrison.preflight.listeners import conflicting
from garrison.preflight.machine import Machine
from garrison.preflight.port import Finding
from garrison.preflight.reclaim import Stopped, stop_trees
from garrison.preflight.refusal import holder_details
from garrison.preflight.report import PreflightRequest
from garrison.preflight.stop_notes import StopNote, leave_note
from garrison.processes.tree import post_order

__all__ = ["stop_holders"]


def stop_holders(request: PreflightRequest, finding: Finding, machine: Machine) -> Stopped:
    """Stop the trees that hold the port and see it free.

    Raises:
        PortStuckError: it still listens.
        PortOtherUserError: the system does not permit to signal one of the processes.
    """

    def is_free() -> bool:
        """No listener is in the way, and no connection that the servers left either."""
        if conflicting(finding.addresses, machine.sockets.listeners(request.port)):
            return False
        error = machine.sockets.bind_error(finding.addresses, request.port)
        return error is None or error.errno != errno.EADDRINUSE

    assert finding.verdict is not None
    roots = finding.verdict.roots
    if request.notes is not None:
        tree = post_order((root.id for root in roots), machine.processes.snapshot())
        leave_note(request.notes, request.port, _note(tree))
    for root in roots:
        machine.say(f"stopping pid {root.id.pid}, which holds port {request.port}: {shown_command(root.argv)}")
    try:
        stopped = stop_trees(
            (root.id for root in roots),
            processes=machine.processes,
            is_free=is_free,
            timeout=request.stop_timeout,
            clock=machine.clock,
            say=machine.say,
        )
    except PermissionError:
        raise PortOtherUserError(
            f"port {request.port} is held by processes that this user may not signal",
            hint="Run as their user or as root.",
            details=holder_details(roots, finding.verdict.listeners),
        ) from None
    if stopped.free:
        return stopped
    raise _still_held(request, finding, machine, stopped)


def _still_held(request: PreflightRequest, finding: Finding, machine: Machine, stopped: Stopped) -> PortStuckError:
    assert finding.verdict is not None
    roots = finding.verdict.roots
    sockets, processes = machine.sockets, machine.processes
    holders, _ = find_holders(finding.addresses, request.port, sockets=sockets, processes=processes)
    hint = "Raise VLLM_STOP_TIMEOUT, or look at these processes: a supervisor may have restarted one."
    if not holders:
        holders, _ = find_holders(finding.addresses, request.port, sockets=sockets, processes=processes, connected=True)
        hint = "Only its connections are left, which the system keeps for a minute. Run this again then."
    present = tuple(root for holder in holders for root in holder.roots) or roots
    return PortStuckError(
        f"port {request.port} is still held {request.stop_timeout:g} s after the stop",
        hint=hint,
        details=holder_details(present, (holder.listener for holder in holders))
        | {"stopped_roots": [root.id.pid for root in roots], "survivors": [one.pid for one in stopped.survivors]},
    )


def _note(stopped: tuple[ProcessId, ...]) -> StopNote:
    return StopNote(stopped, os.getpid(), user_name(), shown_command((Path(sys.argv[0]).name, *sys.argv[1:])))
