"""Records of the engines that Garrison has started: one private file each, in a directory of the user's own.

The parent of an engine writes its record and removes it when the engine has ended; `serve --exec` leaves that to the
next reader. A record names processes by identity, so one that outlived its engine (`kill -9`, a reboot) is recognised,
and a pid that belongs to another process by now does not match.

What others could have written is not believed: the directory and each file must belong to this very user and be closed
to everybody else. Root does not believe a user's records either.
"""

import contextlib
import json
import os
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garrison.base.files import write_atomic
from garrison.base.identity import Identity, ProcessId, is_gone
from garrison.processes.local import local_processes

__all__ = ["EngineRecord", "Records", "forget_engine", "read_records", "record_engine", "unrecorded"]

_VERSION = 1
_MOST_BYTES = 64 * 1024
_MOST_RECORDS = 4096
_MOST_WARNINGS = 3
_FOREIGN_SECONDS = 30 * 86400.0
"""How long to keep a record that cannot be judged here: of another host, container or boot."""


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """An engine that Garrison started.

    Attributes:
        engine: its registry name, such as `llama_cpp`.
        port: the TCP port it was told to listen on; None for none.
        main: the engine's first process.
        shim: the process that reaps the engine's descendants; None where there is none.
    """

    engine: str
    port: int | None
    main: Identity
    shim: Identity | None = None

    @property
    def processes(self) -> tuple[ProcessId, ...]:
        """The roots of the engine's tree, as this machine's process table names them."""
        known = (self.main, self.shim)
        return tuple(ProcessId(one.pid, one.start) for one in known if one is not None and one.start is not None)


@dataclass(frozen=True, slots=True)
class Records:
    """The engines that still run, and what was wrong with files that were not believed, a few of them at most."""

    engines: tuple[EngineRecord, ...] = ()
    warnings: tuple[str, ...] = ()


class _NotBelievedError(Exception):
    """The message completes "ignoring FILE: …"."""


def record_engine(directory: Path, record: EngineRecord) -> Path:
    """Write a record and return its file. The directory is made where it is missing.

    Raises:
        OSError: it cannot be written, or the directory is not private to this user.
    """
    # `parents` would make the one above, which holds other private files, with the mode that the umask leaves.
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    with _open_private(directory) as descriptor:
        for _ in _living(descriptor):
            pass  # reading removes what is stale, so the directory does not grow without bound
    body = {
        "v": _VERSION,
        "engine": record.engine,
        "port": record.port,
        "main": str(record.main),
        "shim": None if record.shim is None else str(record.shim),
    }
    path = directory / _name(record.main)
    write_atomic(path, json.dumps(body), mode=0o600, durable=False)
    return path


def unrecorded(reason: str) -> str:
    """The warning about an engine of which no record could be written."""
    return (
        f"warning: the engine is not recorded ({reason}), so another `garrison serve` or `garrison preflight` on its "
        "port may not recognise it as yours"
    )


def forget_engine(path: Path) -> None:
    """Remove a record. One that cannot be removed is recognised as stale by the next reader."""
    with contextlib.suppress(OSError):
        path.unlink()


def read_records(directory: Path) -> Records:
    """The records of engines that run on this machine. Stale ones are removed.

    No directory means no engines. One that others can write holds nothing that is believed.
    """
    engines: list[EngineRecord] = []
    warnings: list[str] = []
    try:
        with _open_private(directory) as descriptor:
            for name, found in _living(descriptor):
                if isinstance(found, EngineRecord):
                    engines.append(found)
                elif len(warnings) < _MOST_WARNINGS:
                    warnings.append(f"ignoring {directory / name}: {found}")
    except FileNotFoundError:
        pass
    except OSError as error:
        warnings.append(f"ignoring the records of started engines in {directory}: {error.strerror}")
    return Records(tuple(engines), tuple(warnings))


def _living(directory: int) -> Iterator[tuple[str, EngineRecord | _NotBelievedError]]:
    names = [name for name in os.listdir(directory) if name.endswith(".json")]
    for name in names[:_MOST_RECORDS]:
        try:
            record, age = _read(directory, name)
        except FileNotFoundError:
            continue
        except _NotBelievedError as reason:
            yield name, reason
            continue
        except OSError as error:
            yield name, _NotBelievedError(error.strerror)
            continue
        ended = [_has_ended(one) for one in (record.main, record.shim) if one is not None]
        if all(gone is True for gone in ended) or (None in ended and age > _FOREIGN_SECONDS):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
        elif False in ended:
            yield name, record


def _has_ended(process: Identity) -> bool | None:
    """As `is_gone`, and a zombie has ended too: where pid 1 reaps no orphans, it stays for as long as the container."""
    gone = is_gone(process)
    return True if gone is False and local_processes().stat(process.pid) is None else gone


def _read(directory: int, name: str) -> tuple[EngineRecord, float]:
    """A record and its age in seconds."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise _NotBelievedError(f"it cannot be opened: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _NotBelievedError("it is not a regular file")
        if found.st_uid != os.geteuid():
            raise _NotBelievedError(f"it belongs to uid {found.st_uid}")
        if found.st_mode & 0o077:
            raise _NotBelievedError("it is open to other users")
        content = file.read(_MOST_BYTES)
    try:
        return _parse(json.loads(content)), time.time() - found.st_mtime
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise _NotBelievedError("it is not a record of an engine") from None


def _parse(body: Mapping[str, Any]) -> EngineRecord:
    if body["v"] != _VERSION or not isinstance(body["engine"], str):
        raise ValueError
    port, shim = body["port"], body["shim"]
    return EngineRecord(
        body["engine"],
        None if port is None else int(port),
        Identity.parse(body["main"]),
        None if shim is None else Identity.parse(shim),
    )


@contextlib.contextmanager
def _open_private(directory: Path) -> Iterator[int]:
    """A descriptor of the directory, which names in it are resolved against.

    Raises:
        OSError: it does not exist, or is not a directory of this user alone.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(1, "the directory must belong to this user and have mode 0700")
        yield descriptor
    finally:
        os.close(descriptor)


def _name(process: Identity) -> str:
    return f"{process.pid}-{process.start}-{zlib.crc32(str(process.place).encode()):08x}.json"
