"""Who stopped a server: a note that whoever stops one leaves, and that its parent finds when the server has ended.

A signal says who sent it only to a process that waits for it in a special way, and the engine that gets it says nothing
to its parent. The note lies in a directory of the user's own (`run` in the data directory), one file for each port.
"""

import contextlib
import json
import os
import stat
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from garrison.base.files import write_atomic
from garrison.base.identity import ProcessId

__all__ = ["StopNote", "leave_note", "read_note"]

_MOST_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class StopNote:
    """`stopped` are the processes that were about to be signalled; the rest says who does it."""

    stopped: tuple[ProcessId, ...]
    pid: int
    user: str
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} (user {self.user}): {self.command}"


def leave_note(directory: Path, port: int, note: StopNote) -> None:
    """Write it, in place of an older one. That it cannot be written is no reason not to stop a server."""
    body = asdict(note) | {"stopped": [[one.pid, one.start] for one in note.stopped]}
    with contextlib.suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(_path(directory, port), json.dumps(body), mode=0o600)


def read_note(directory: Path, port: int, processes: Collection[ProcessId]) -> StopNote | None:
    """The note about one of `processes`, which had the port; None without one, or when it is not to be trusted."""
    try:
        descriptor = os.open(_path(directory, port), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
                return None
            body = json.loads(file.read(_MOST_BYTES))
        stopped = tuple(ProcessId(int(pid), int(start)) for pid, start in body["stopped"])
        note = StopNote(stopped, int(body["pid"]), str(body["user"]), str(body["command"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return note if set(stopped) & set(processes) else None


def _path(directory: Path, port: int) -> Path:
    return directory / f"stopped-{port}.json"
