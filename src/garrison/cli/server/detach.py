"""`garrison up --detach`: the same command in the background, watched until it is ready."""

import subprocess
import sys
import time
from pathlib import Path

from garrison.base.errors import ConflictError, EngineDiedError, EngineTimeoutError, GarrisonError, all_errors
from garrison.base.settings import Settings
from garrison.cli.background import end, how_it_ended, require_room, spawn
from garrison.cli.server.already import address_of, already_runs
from garrison.cli.server.client import ServerClient

__all__ = ["detach", "ended_early"]

_READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
_TAIL_BYTES = 4000


def detach(values: Settings, *arguments: str) -> int:
    """Start `garrison up` with `arguments` in a session of its own, and return when it is ready.

    Its output goes to `server.log` in the data directory; the log of 32 MiB and more becomes `server.log.1` first.
    Ctrl-C ends the server that was just started.

    Raises:
        ConflictError: a server runs there already.
        EngineTimeoutError: it is not ready after a minute. It goes on starting.
        GarrisonError: it ended; the message has its last lines, the exit code is its own.
    """
    log = values.data_dir / "server.log"
    with ServerClient.of_this_machine(values) as there:
        if there.answers():
            raise already_runs(values)
        begin, child = spawn(["up", *arguments], log)
        try:
            _wait_until_ready(there, child, log, begin)
        except KeyboardInterrupt:
            end(child)
            print("the server was ended again", file=sys.stderr)
            raise
        address = address_of(there)
    where = f"{address}, " if address else ""
    print(f"the server runs in the background: {where}pid {child.pid}; its log is {log}")
    return 0


def ended_early(code: int, tail: str, log: Path) -> GarrisonError:
    """The error of a server that ended before it was ready, with the class that has its exit code.

    Raises:
        DiskFullError: it has said nothing, since its log could not be written.
    """
    if not tail:
        require_room(log)
    cls = next((one for one in all_errors() if int(one.exit_code) == code), EngineDiedError)
    if cls is ConflictError:  # two commands at once; the other one was first
        return ConflictError(_last_error(tail) or "another server was started first", hint="`garrison down` ends it.")
    said = f":\n{tail}" if tail else ", and its log does not say why"
    return cls(f"the server {how_it_ended(code)}{said}", hint=f"Its log is {log}.", details={"log_path": str(log)})


def _wait_until_ready(there: ServerClient, child: "subprocess.Popen[bytes]", log: Path, begin: int) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        if (code := child.poll()) is not None:
            raise ended_early(code, _tail(log, begin), log)
        if there.is_ready():
            return
        if time.monotonic() > deadline:
            raise EngineTimeoutError(
                f"the server is not ready after {_READY_SECONDS:g} s; it goes on starting", hint=f"Its log is {log}."
            )
        time.sleep(_POLL_SECONDS)


def _tail(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - _TAIL_BYTES))
        return file.read(_TAIL_BYTES).decode("utf-8", "replace").strip()


def _last_error(tail: str) -> str | None:
    found = [line.partition("error: ")[2] for line in tail.splitlines() if line.startswith("error: ")]
    return found[-1] if found else None
