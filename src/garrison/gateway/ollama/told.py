"""What the process is told at its start, and how the next control process finds it: by a file in the data directory."""

import os
from pathlib import Path

import msgspec

from garrison.base.files import write_atomic
from garrison.base.identity import ProcessId, start_time

__all__ = ["RECORD_NAME", "Record", "Told", "read_record", "write_record"]

RECORD_NAME = "ollama.json"
_MOST_BYTES = 64 * 1024


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the process is told. One that was told something else is replaced.

    Attributes:
        version: of the package.
        data_dir: where its record is; without that it ends.
        control_socket: of the control process, without which it ends after an hour.
        address: where it listens, as `HOST:PORT`.
        gateway: scheme, host and port of the gateway.
        gateway_certificate: the file of the gateway's certificate, where it speaks TLS.
        tls_cert, tls_key: for its own port.
        hosts: names under which it is reached, beside addresses and local names.
        origins: of web pages that may ask; `*` for all.
    """

    version: str
    data_dir: str
    control_socket: str
    address: str
    gateway: str
    gateway_certificate: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body_bytes: int = 64 * 2**20
    drain_seconds: float = 30.0


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The process that listens, and what it was told."""

    pid: int
    start: int
    told: Told

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.start)

    @property
    def lives(self) -> bool:
        return start_time(self.pid) == self.start


def read_record(data_dir: Path) -> Record | None:
    """Return the record, if its process still runs."""
    try:
        with (data_dir / RECORD_NAME).open("rb") as file:
            found = msgspec.json.decode(file.read(_MOST_BYTES), type=Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found if found.lives else None


def write_record(told: Told) -> None:
    """Put this process on record. Raises OSError."""
    pid = os.getpid()
    record = Record(pid=pid, start=start_time(pid) or 0, told=told)
    write_atomic(Path(told.data_dir) / RECORD_NAME, msgspec.json.encode(record), mode=0o600)
