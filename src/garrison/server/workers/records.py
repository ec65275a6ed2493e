"""Which workers there are, in a file of the data directory: the next control process adopts them by identity."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from garrison.base.files import write_atomic
from garrison.base.identity import ProcessId, start_time

__all__ = ["RECORD_NAME", "WorkerRecord", "read_workers", "write_workers"]

RECORD_NAME = "gateway.json"
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One worker. `address`: where it listens, as `HOST:PORT`."""

    process: ProcessId
    address: str

    @property
    def lives(self) -> bool:
        return start_time(self.process.pid) == self.process.start


def read_workers(path: Path) -> list[WorkerRecord]:
    """Return those on record that still run."""
    try:
        with path.open("rb") as file:
            rows = json.loads(file.read(_MOST_BYTES))
        found = [WorkerRecord(ProcessId(int(one["pid"]), int(one["start"])), str(one["address"])) for one in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [one for one in found if one.lives]


def write_workers(path: Path, workers: Sequence[WorkerRecord]) -> None:
    """Put them on record. Raises OSError."""
    rows = [{"pid": one.process.pid, "start": one.process.start, "address": one.address} for one in workers]
    write_atomic(path, json.dumps(rows), mode=0o600, durable=False)
