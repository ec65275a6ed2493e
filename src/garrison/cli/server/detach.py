"""`garrison up --detach`: the same command in the background, watched until it is ready."""

import os
import subprocess
import sys
import time
from pathlib import Path

from garrison.base.children import SAFE_PYTHON
from garrison.base.errors import ConflictError, EngineDiedError, EngineTimeoutError
from garrison.base.settings import Settings
from garrison.cli.server.client import ServerClient

__all__ = ["detach"]

_READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
_TAIL_BYTES = 4000


def detach(values: Settings, *arguments: str) -> int:
    """Start `garrison up` with `arguments` in a session of its own, and return when it is ready.

    Its output goes to `server.log` in the data directory.

    Raises:
        ConflictError: a server runs there already.
        EngineDiedError: it ended; the message has its last lines.
    """
    log = values.data_dir / "server.log"
    with ServerClient(values) as there:
        if there.answers():
            raise ConflictError(f"a server runs on {values.data_dir} already", hint="`garrison down` ends it.")
        values.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        begin = log.stat().st_size if log.exists() else 0
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        argv = [sys.executable, SAFE_PYTHON, "-m", "garrison.cli.main", "up", *arguments]
        try:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True
            )
        finally:
            os.close(descriptor)
        deadline = time.monotonic() + _READY_SECONDS
        while not there.is_ready():
            if child.poll() is not None:
                raise EngineDiedError(
                    f"the server ended with {child.returncode}:\n{_tail(log, begin)}", hint=f"Its log is {log}."
                )
            if time.monotonic() > deadline:
                raise EngineTimeoutError(f"the server is not ready after {_READY_SECONDS:g} s", hint=f"Its log: {log}")
            time.sleep(_POLL_SECONDS)
    print(f"the server runs in the background, pid {child.pid}; its log is {log}")
    return 0


def _tail(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - _TAIL_BYTES))
        return file.read(_TAIL_BYTES).decode("utf-8", "replace").strip()
