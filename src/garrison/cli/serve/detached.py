"""`garrison serve --detach`: the same command in the background, watched until its engine is ready."""

import contextlib
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from garrison.base.errors import EngineDiedError, all_errors
from garrison.cli.background import end, how_it_ended, require_room, spawn

__all__ = ["detach"]

_POLL_SECONDS = 0.1
_END_SECONDS = 60.0
_MOST_BYTES = 64 * 1024
_READY = b"READY=1"


def detach(arguments: Sequence[str], log: Path, address: str) -> int:
    """Run `garrison` with `arguments` in a session of its own, and return when its engine is ready.

    Its output goes to `log`, and is shown until then. Ctrl-C ends it.

    Args:
        address: where clients will reach it, for the message.

    Returns:
        0, or the exit code of the command if that ended.

    Raises:
        EngineDiedError: it was killed.
        DiskFullError: it has said nothing, since its log could not be written.
    """
    with _told() as (told, path):
        begin, child = spawn(arguments, log, NOTIFY_SOCKET=path)
        with log.open("rb") as output:
            output.seek(begin)
            try:
                while not _is_ready(told):
                    _show(output)
                    if (code := child.poll()) is not None:
                        _show(output)
                        if output.tell() == begin:
                            require_room(log)
                        return _ended(code, log)
                    time.sleep(_POLL_SECONDS)
            except KeyboardInterrupt:  # any signal that stops: nothing outlives the command that was to watch it
                end(child, _END_SECONDS)
                _show(output)
                raise
            _show(output)
    print(f"it runs in the background: {address}, pid {child.pid}; its log is {log}; `garrison stop` ends it")
    return 0


def _show(output: BinaryIO) -> None:
    """Write what is new to standard error."""
    while data := output.read(_MOST_BYTES):
        with contextlib.suppress(OSError):
            sys.stderr.buffer.write(data)
            sys.stderr.buffer.flush()


@contextlib.contextmanager
def _told() -> Iterator[tuple[socket.socket, str]]:
    """A socket that the child tells when it is ready, as it would tell systemd, and its path."""
    with tempfile.TemporaryDirectory(prefix="garrison-") as directory:
        path = f"{directory}/ready"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(path)
            told.setblocking(False)
            yield told, path


def _is_ready(told: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        while True:
            if _READY in told.recv(_MOST_BYTES):
                return True
    return False


def _ended(code: int, log: Path) -> int:
    if code < 0 or code not in {int(one.exit_code) for one in all_errors()} | {0, 1, 2, 129, 130, 143}:
        raise EngineDiedError(f"it {how_it_ended(code)} before it was ready", hint=f"Its log is {log}.")
    return code
