"""An engine's output: to a bounded file, its last lines in memory, each line to whoever listens."""

import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from garrison.base.errors import InvalidError
from garrison.base.redaction import LineRedactor
from garrison.engines.diagnose import LOG_LINES

__all__ = ["EngineLog"]

_MAX_LINE_BYTES = 64 * 1024
_MAX_FILE_BYTES = 32 * 1024 * 1024
# Progress bars move with carriage returns; colours and cursor moves have no meaning in a file.
_BREAK = re.compile(rb"[\r\n]+")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*\x07")


class EngineLog:
    """Takes bytes as they come, and passes whole lines on without the secrets in them.

    The file is kept to 32 MiB, the older half in `<name>.1`; the log of the engine before goes there too, since it may
    say why that one ended. It holds prompts if the engine logs them: mode 600.

    Raises:
        InvalidError: it cannot be made; said before an engine starts.
    """

    def __init__(self, path: Path, on_line: Callable[[str], None] = lambda _: None) -> None:
        self.path = path
        self.tail: deque[str] = deque(maxlen=LOG_LINES)
        self._on_line = on_line
        self._rest = b""
        self._redactor = LineRedactor()
        self._file: BinaryIO | None = None
        self._written = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and not path.is_symlink() and path.stat().st_size:
                self._set_aside()
            self._open()
        except OSError as error:
            raise InvalidError(
                f"the engine's log {path} cannot be written: {error.strerror}",
                hint="Name a directory that can be written: GARRISON_DATA_DIR.",
            ) from None

    def feed(self, data: bytes) -> None:
        """Any piece of output; lines may be cut anywhere."""
        self._pass_on(self._redactor.feed(data))

    def _pass_on(self, data: bytes) -> None:
        self._write(data)
        *lines, self._rest = _BREAK.split(self._rest + data)
        if len(self._rest) > _MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._take(line)

    def close(self) -> None:
        self._pass_on(self._redactor.end())
        if self._rest:
            self._take(self._rest)
            self._rest = b""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, raw: bytes) -> None:
        text = _ESCAPE.sub("", raw.decode("utf-8", "replace")).rstrip()
        if text:
            self.tail.append(text)
            self._on_line(text)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            if self._written + len(data) > _MAX_FILE_BYTES // 2:
                self._file.close()
                self._set_aside()
                self._open()
            self._file.write(data)
            self._written += len(data)
        except OSError:
            # A full disk must not stop a server that runs; the tail in memory goes on.
            self._file.close()
            self._file = None

    def _set_aside(self) -> None:
        self.path.replace(self.path.with_name(self.path.name + ".1"))

    def _open(self) -> None:
        self.path.unlink(missing_ok=True)
        self.path.touch(mode=0o600)
        self._file = self.path.open("ab", buffering=0)
        self._written = 0
