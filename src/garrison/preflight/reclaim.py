"""Stopping the processes that hold a port: SIGTERM, a wait, SIGKILL, and a wait until the port is free."""

import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from garrison.base.clock import Clock
from garrison.base.identity import ProcessId
from garrison.processes.process import Processes
from garrison.processes.tree import post_order

__all__ = ["Stopped", "living", "stop_trees"]

_POLL_SECONDS = 0.1
# The kernel needs time to tear down a killed process, more for one with much memory; `timeout` may be 0.
_LEAST_AFTER_KILL = 2.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """What happened to the trees.

    Attributes:
        signalled: the processes that were sent SIGTERM, in that order.
        killed: those that were sent SIGKILL too.
        survivors: those that still run at the end.
        free: whether `is_free` held at the end.
    """

    signalled: tuple[ProcessId, ...]
    killed: tuple[ProcessId, ...]
    survivors: tuple[ProcessId, ...]
    free: bool


def stop_trees(
    roots: Iterable[ProcessId],
    *,
    processes: Processes,
    is_free: Callable[[], bool],
    timeout: float,
    clock: Clock,
    say: Callable[[str], None],
) -> Stopped:
    """Send SIGTERM to the trees under `roots`, children first; wait up to `timeout` seconds; send SIGKILL to the
    survivors; then wait up to `timeout` seconds, at least two, until they have ended and `is_free()` holds.

    Raises:
        PermissionError: one of them may not be signalled; those before it were.
    """
    roots = tuple(roots)
    tree = post_order(roots, processes.snapshot())
    signalled = _send(tree, signal.SIGTERM, processes)
    # A child started between the look and the signal becomes an orphan now, and would not be found later.
    late = (one for one in post_order(signalled, processes.snapshot()) if one not in signalled)
    signalled += _send(late, signal.SIGTERM, processes)
    if _wait(signalled, processes, is_free, timeout, clock):
        return Stopped(signalled, (), (), True)
    # Processes that were started since the first look belong to the tree too.
    survivors = post_order(living(signalled, processes), processes.snapshot())
    if survivors:
        say(f"{len(survivors)} of the processes still run {timeout:g} s after SIGTERM: sending SIGKILL")
    killed = _send(survivors, signal.SIGKILL, processes)
    everything = tuple(dict.fromkeys((*signalled, *survivors)))
    free = _wait(everything, processes, is_free, max(timeout, _LEAST_AFTER_KILL), clock)
    return Stopped(everything, killed, living(everything, processes), free or is_free())


def living(known: Iterable[ProcessId], processes: Processes) -> tuple[ProcessId, ...]:
    """Those of `known` that still run: the same processes, not only the same pids."""
    found = ((one, processes.read(one.pid)) for one in known)
    return tuple(one for one, process in found if process is not None and process.id == one)


def _send(tree: Iterable[ProcessId], number: int, processes: Processes) -> tuple[ProcessId, ...]:
    return tuple(one for one in tree if processes.signal(one, number))


def _wait(
    known: tuple[ProcessId, ...], processes: Processes, is_free: Callable[[], bool], seconds: float, clock: Clock
) -> bool:
    deadline = clock.monotonic() + seconds
    while True:
        if not living(known, processes) and is_free():
            return True
        if clock.monotonic() >= deadline:
            return False
        clock.sleep(min(_POLL_SECONDS, max(0.0, deadline - clock.monotonic())))
