"""An engine's output: into a bounded file, with the last lines in memory, and line by line to a callback."""

import errno
import fcntl
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from garrison.base.errors import DiskFullError, InvalidError
from garrison.base.redaction import LineRedactor, without_colours

__all__ = ["EngineLog", "OutputLines"]

_MAX_LINE_BYTES = 64 * 1024
_MAX_FILE_BYTES = 32 * 1024 * 1024
_LEAST_FREE_BYTES = 64 * 1024
_MOST_NAMES = 100
_TAIL_LINES = 400
# Progress bars use carriage returns.
_BREAK = re.compile(rb"[\r\n]+")


class OutputLines:
    """Accepts bytes in any pieces, and passes on whole lines, without secrets. It writes nothing.

    Args:
        path: where the output is kept, for messages.
        tail_lines: how many of the last lines to keep in memory.

    Attributes:
        tail: the last lines.
    """

    def __init__(
        self, path: Path, on_line: Callable[[str], None] = lambda _: None, *, tail_lines: int = _TAIL_LINES
    ) -> None:
        self.path = path
        self.tail: deque[str] = deque(maxlen=tail_lines)
        self._on_line = on_line
        self._rest = b""
        self._redactor = LineRedactor()

    def begin(self) -> None:
        """The next output is a new engine's."""

    def note(self, text: str) -> None:
        """Accept a line from Garrison, for later readers."""

    def feed(self, data: bytes) -> None:
        """Accept a piece of output, cut anywhere."""
        self._pass_on(self._redactor.feed(data))

    def close(self) -> None:
        """Pass on what was held back."""
        if rest := self._redactor.end():
            self._pass_on(rest)
        if self._rest:
            self._take(self._rest)
            self._rest = b""

    def _pass_on(self, data: bytes) -> None:
        *lines, self._rest = _BREAK.split(self._rest + data)
        if len(self._rest) > _MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._take(line)

    def _take(self, raw: bytes) -> None:
        text = without_colours(raw.decode("utf-8", "replace")).rstrip()
        if text:
            self.tail.append(text)
            self._on_line(text)


class EngineLog(OutputLines):
    """Keeps the lines of one engine in a bounded file, too.

    Making one opens the file and leaves its content; `begin`, or the first output, starts a new log, since only then an
    engine certainly starts. The file is kept to 32 MiB, with the older half in `<name>.1`. The log of the previous
    engine goes there too: it may explain why that one exited. It may contain prompts, so its mode is 600.

    The file is locked while it is in use. Another log of the same name, of an engine that is about to replace the
    first, gets its own name: `vllm-8000.2.log`.

    Attributes:
        path: the file in use.

    Raises:
        InvalidError: the file cannot be made. Raised before an engine starts.
        DiskFullError: the disk is full.
    """

    def __init__(
        self, path: Path, on_line: Callable[[str], None] = lambda _: None, *, tail_lines: int = _TAIL_LINES
    ) -> None:
        super().__init__(path, on_line, tail_lines=tail_lines)
        self._file: BinaryIO | None = None
        self._begun = False
        self._written = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file, self.path = _first_free(path)
            self._see_room()
        except OSError as error:
            self.close()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(
                    f"no space for the engine's log {path}: {error.strerror}",
                    hint="Free some space, or set GARRISON_DATA_DIR to a directory on another disk.",
                    details={"path": str(path), "needed_bytes": _LEAST_FREE_BYTES},
                ) from None
            raise InvalidError(
                f"the engine's log {path} cannot be written: {error.strerror}",
                hint="Set GARRISON_DATA_DIR to a directory that can be written.",
            ) from None

    def begin(self) -> None:
        """Start a new log, and keep the previous engine's beside it."""
        self._begun = True
        if self._file is not None and os.fstat(self._file.fileno()).st_size:
            self._rotate()

    def note(self, text: str) -> None:
        """Write a line from Garrison, for later readers of the file."""
        self._write(f"garrison: {text}\n".encode(errors="replace"))

    def close(self) -> None:
        # Only what was held back is written: a log that was opened and not used keeps its content.
        super().close()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _pass_on(self, data: bytes) -> None:
        self._write(data)
        super()._pass_on(data)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            if not self._begun:
                self.begin()
            if self._written + len(data) > _MAX_FILE_BYTES // 2:
                self._rotate()
            self._file.write(data)
            self._written += len(data)
        except OSError:
            # A full disk must not stop a running server; the lines in memory continue.
            self._file.close()
            self._file = None

    def _rotate(self) -> None:
        """Start a new file under the same name. The old one stays locked until the new one is.

        Somebody may have removed the old one, perhaps to free some space, and another engine may write under its name.
        """
        if self._file is not None and _is_at(self._file.fileno(), self.path):
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        fresh, self.path = _first_free(self.path)
        if self._file is not None:
            self._file.close()
        self._file, self._written = fresh, 0

    def _see_room(self) -> None:
        """Reserve space and give it back: on a full disk an empty file can be made, and only writing fails."""
        assert self._file is not None
        descriptor = self._file.fileno()
        size = os.fstat(descriptor).st_size
        try:
            os.posix_fallocate(descriptor, size, _LEAST_FREE_BYTES)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
        finally:
            os.ftruncate(descriptor, size)


def _names(path: Path) -> Iterator[Path]:
    yield path
    for number in range(2, _MOST_NAMES):
        yield path.with_name(f"{path.stem}.{number}{path.suffix}")


def _open_locked(path: Path) -> BinaryIO | None:
    """Open and lock a file; None if a log in use has it. A link in its place is removed."""
    while True:
        if path.is_symlink():
            path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                os.close(descriptor)
                raise
        # Its holder may have renamed it between the two calls; then another file has the name now.
        if _is_at(descriptor, path):
            os.fchmod(descriptor, 0o600)
            return os.fdopen(descriptor, "ab", buffering=0)
        os.close(descriptor)


def _first_free(path: Path) -> tuple[BinaryIO, Path]:
    for name in _names(path):
        if (found := _open_locked(name)) is not None:
            return found, name
    raise OSError(errno.EBUSY, "every name for it is in use")


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)
