"""The identity of a process: one value for locks, leases, signals and records of engines.

A pid alone names whatever process has it now. A process is identified by pid and start time, and both are valid only
for one boot of one host, in one pid namespace.
"""

import functools
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from garrison.base.procfs import has_proc

__all__ = ["Identity", "Place", "ProcessId", "is_gone", "start_time", "this_place", "this_process"]


@dataclass(frozen=True, slots=True, order=True)
class ProcessId:
    """A process within one place. `start` is in the system's own unit (clock ticks after boot on Linux): only compare
    it, do not compute with it."""

    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pid is valid.

    Attributes:
        host: the host's name, for messages. Two hosts may have the same.
        boot: the boot id of the kernel; empty where the system has none.
        namespace: the kernel's name of the pid namespace; each container has its own.
    """

    host: str
    boot: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        return "/".join((self.host, self.boot, self.namespace)) if self.boot else self.host

    @classmethod
    def parse(cls, text: str) -> "Place":
        host, _, rest = text.partition("/")
        boot, _, namespace = rest.partition("/")
        return cls(host, boot, namespace)


@dataclass(frozen=True, slots=True)
class Identity:
    """A process anywhere. Where the system does not tell its `start`, that is None, and only its end can be seen."""

    place: Place
    pid: int
    start: int | None

    def __str__(self) -> str:
        """One line, read back by `parse`."""
        return f"{self.pid} {self.start} {self.place}"

    @classmethod
    def parse(cls, text: str) -> "Identity":
        """Read what `str` of an identity wrote.

        Raises:
            ValueError: `text` is something else.
        """
        pid, start, place = text.strip().split(" ", 2)
        return cls(Place.parse(place), int(pid), None if start == "None" else int(start))


def this_process() -> Identity:
    """The identity of this process."""
    pid = os.getpid()
    return Identity(this_place(), pid, start_time(pid))


def this_place() -> Place:
    """The place of this process, which does not change while it runs."""
    return _place(has_proc())


@functools.cache
def _place(by_proc: bool) -> Place:
    if not by_proc:
        # Start times are those of a calendar here, so no other boot has the same.
        return Place(os.uname().nodename)
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return Place(os.uname().nodename, boot, str(Path("/proc/self/ns/pid").readlink()))
    return Place(os.uname().nodename)


def start_time(pid: int) -> int | None:
    """The start of `pid`, in clock ticks after boot, without `/proc` in microseconds since the epoch; None when it has
    ended."""
    if not has_proc():
        return _calendar_start(pid)
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command name, field 2, may hold spaces and parentheses: count from the last parenthesis.
    fields = content[content.rindex(b")") + 2 :].split()
    return int(fields[19])


def _calendar_start(pid: int) -> int | None:
    import psutil  # other systems only: it costs more than everything else here

    try:
        return int(psutil.Process(pid).create_time() * 1_000_000)
    except psutil.Error:
        return None


def is_gone(process: Identity) -> bool | None:
    """Whether `process` has ended; None where that cannot be told from here: on another host, in another pid namespace,
    or from another boot, which may have been another host's."""
    if process.place != this_place():
        return None
    found = start_time(process.pid)
    if process.start is None:
        return True if found is None and start_time(os.getpid()) is not None else None
    return found != process.start
