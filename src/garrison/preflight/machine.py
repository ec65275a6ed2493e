"""The machine a preflight runs on: its seams in one value, real unless the caller brings twins."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from garrison.base.clock import Clock, SystemClock
from garrison.preflight.listeners import Sockets
from garrison.preflight.processes import Processes

__all__ = ["Machine", "this_machine"]


@dataclass(frozen=True, slots=True)
class Machine:
    """`say` takes one sentence for people."""

    processes: Processes
    sockets: Sockets
    clock: Clock
    say: Callable[[str], None]


def this_machine(
    say: Callable[[str], None],
    *,
    processes: Processes | None = None,
    sockets: Sockets | None = None,
    clock: Clock | None = None,
) -> Machine:
    """The running machine, read from `/proc` where there is one and through psutil elsewhere."""
    return Machine(processes or _processes(), sockets or _sockets(), clock or SystemClock(), say)


def _processes() -> Processes:
    if Path("/proc/self/stat").exists():
        from garrison.preflight.procfs import Procfs

        return Procfs()
    from garrison.preflight.portable import PsutilProcesses

    return PsutilProcesses()


def _sockets() -> Sockets:
    from garrison.preflight.procnet import ProcNet

    if Path("/proc/net/tcp").exists():
        return ProcNet()
    from garrison.preflight.portable import PsutilSockets

    return PsutilSockets()
