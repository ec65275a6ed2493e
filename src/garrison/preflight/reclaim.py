"""Stopping the processes that hold a port: SIGTERM, wait, SIGKILL, and a port that is seen to be free."""

import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from garrison.base.clock import Clock
from garrison.base.identity import ProcessId
from garrison.processes.process import Processes
from garrison.processes.tree import post_order

__all__ = ["Stopped", "living", "stop_trees"]

_POLL_SECONDS = 0.1
# The kernel needs a moment to tear a killed process down, the more the more memory it had; `timeout` may be 0.
_LEAST_AFTER_KILL = 2.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """What became of the trees.

    Attributes:
        signalled: everything that was sent SIGTERM, in that order.
        killed: those of them that needed SIGKILL.
        survivors: still there at the end.
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
    """SIGTERM to the trees under `roots` in post-order, up to `timeout` seconds of waiting, SIGKILL to the survivors,
    then up to `timeout` seconds (at least two) until they are gone and `is_free()` holds.

    Raises:
        PermissionError: the system does not let us signal one of them; earlier ones were signalled.
    """
    roots = tuple(roots)
    tree = post_order(roots, processes.snapshot())
    signalled = _send(tree, signal.SIGTERM, processes)
    # A child born between the look and the signal would be an orphan a moment from now, and out of sight.
    late = (one for one in post_order(signalled, processes.snapshot()) if one not in signalled)
    signalled += _send(late, signal.SIGTERM, processes)
    if _wait(signalled, processes, is_free, timeout, clock):
        return Stopped(signalled, (), (), True)
    # What was started after the first look belongs to the tree as well.
    survivors = post_order(living(signalled, processes), processes.snapshot())
    if survivors:
        say(f"{len(survivors)} of the processes still run {timeout:g} s after SIGTERM: sending SIGKILL")
    killed = _send(survivors, signal.SIGKILL, processes)
    everything = tuple(dict.fromkeys((*signalled, *survivors)))
    free = _wait(everything, processes, is_free, max(timeout, _LEAST_AFTER_KILL), clock)
    return Stopped(everything, killed, living(everything, processes), free or is_free())


def living(known: Iterable[ProcessId], processes: Processes) -> tuple[ProcessId, ...]:
    """Those of `known` that still run, the same processes and not merely the same pids."""
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
