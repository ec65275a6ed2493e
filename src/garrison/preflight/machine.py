"""The machine of a preflight: its seams in one value, real unless the caller passes twins."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from garrison.base.clock import Clock, SystemClock
from garrison.base.procfs import has_proc

if TYPE_CHECKING:
    from garrison.preflight.listeners import Sockets
    from garrison.processes.process import Processes

__all__ = ["Machine"]


class Machine:
    """The running machine, read from `/proc` on Linux and through psutil elsewhere.

    Each seam is made at its first use: on a free port no process is read, and nothing is imported for it.

    Args:
        say: accepts one sentence for people.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        processes: "Processes | None" = None,
        sockets: "Sockets | None" = None,
        clock: Clock | None = None,
    ) -> None:
        self.say = say
        self.clock: Clock = clock or SystemClock()
        self._processes = processes
        self._sockets = sockets

    @cached_property
    def processes(self) -> "Processes":
        if self._processes is not None:
            return self._processes
        if has_proc():
            from garrison.processes.procfs import Procfs

            return Procfs()
        from garrison.processes.portable import PsutilProcesses

        return PsutilProcesses()

    @cached_property
    def sockets(self) -> "Sockets":
        if self._sockets is not None:
            return self._sockets
        if has_proc() and Path("/proc/net/tcp").exists():
            from garrison.preflight.procnet import ProcNet

            return ProcNet()
        from garrison.preflight.portable import PsutilSockets

        return PsutilSockets()
