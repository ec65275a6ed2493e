"""Which command stopped a server: a note that it leaves, and that the server's parent reads after the exit.

The sender of a signal is known only to a process that waits for it with `sigwaitinfo`, and engines do not tell their
parents. Notes are in a private directory of the user (`run` in the data directory), one file for each port.
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
    """`stopped` are the processes about to be signalled; the other fields describe the command that does it."""

    stopped: tuple[ProcessId, ...]
    pid: int
    user: str
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} (user {self.user}): {self.command}"


def leave_note(directory: Path, port: int, note: StopNote) -> None:
    """Write it over an older one. A note that cannot be written does not keep the server from being stopped."""
    body = asdict(note) | {"stopped": [[one.pid, one.start] for one in note.stopped]}
    with contextlib.suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(_path(directory, port), json.dumps(body), mode=0o600, durable=False)


def read_note(directory: Path, port: int, processes: Collection[ProcessId]) -> StopNote | None:
    """The note about one of `processes`, which had the port; None if there is none, or it cannot be trusted."""
    try:
        descriptor = os.open(_path(directory, port), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
                return None
            body = json.loads(file.read(_MOST_BYTES))
        stopped = tuple(ProcessId(int(pid), int(start)) for pid, start in body["stopped"])
        note = StopNote(stopped, int(body["pid"]), str(body["user"]), str(body["command"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return note if set(stopped) & set(processes) else None


def _path(directory: Path, port: int) -> Path:
    return directory / f"stopped-{port}.json"
