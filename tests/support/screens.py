"""A command on a terminal of 80 columns, in a process of its own."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Screen"]

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ERASE = re.compile(r"\x1b\[[0-2]?K")
_SIZE = struct.pack("HHHH", 24, 80, 0, 0)


class Screen:
    """`garrison` with these words.

    Attributes:
        process: it leads a session, whose terminal this is.
    """

    def __init__(self, environ: Mapping[str, str], *words: str | Path, cwd: Path | None = None) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, _SIZE)
        kept = {name: value for name, value in environ.items() if name not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "garrison.cli.main", *map(str, words)],
            env=kept | {"TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            cwd=cwd,
        )
        os.close(slave)
        self._bytes = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._thread.join(10)
        os.close(self._master)

    def text(self) -> str:
        """Everything that was drawn, without colours and movements."""
        return _ESCAPE.sub("", self._bytes.decode("utf-8", "replace"))

    def lines(self) -> list[str]:
        """Every line that was drawn, also those that were drawn over."""
        text = _ESCAPE.sub("", _ERASE.sub("\n", self._bytes.decode("utf-8", "replace")))
        return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def end(self, seconds: float = 60.0) -> int:
        """Wait for the end, and return the exit code."""
        code = self.process.wait(seconds)
        self._thread.join(10)
        return code

    @property
    def gives_the_cursor_back(self) -> bool:
        """Whether the cursor, if it was hidden, is shown again."""
        return self._bytes.rfind(b"\x1b[?25l") <= self._bytes.rfind(b"\x1b[?25h")

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while True:
                if select.select([self._master], [], [], 0.2)[0]:
                    self._bytes += os.read(self._master, 65536)
                elif self.process.poll() is not None:
                    return
