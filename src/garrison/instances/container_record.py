"""The file that says in which container an instance runs, so that a later server can find and remove it."""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from garrison.base.files import write_atomic

__all__ = ["ContainerRecord", "forget_container", "read_container", "record_container"]

_NAME = "container"
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """Where a container is found.

    Attributes:
        program: docker or podman, by its absolute path, with its own options.
        labels: those of the container.
    """

    program: tuple[str, ...]
    labels: Mapping[str, str]


def record_container(directory: Path, record: ContainerRecord) -> None:
    """Write the file of an instance, before its container is started. Raises OSError."""
    content = {"program": list(record.program), "labels": dict(record.labels)}
    write_atomic(directory / _NAME, json.dumps(content), mode=0o600, durable=False)


def forget_container(directory: Path) -> None:
    """Remove the file, if there is one. Raises OSError."""
    (directory / _NAME).unlink(missing_ok=True)


def read_container(directory: Path) -> ContainerRecord | None:
    """Read the file of an instance; None where there is none that this user wrote."""
    try:
        descriptor = os.open(directory / _NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return None
        content = file.read(_MOST_BYTES)
    try:
        body = json.loads(content)
        program = tuple(str(word) for word in body["program"])
        labels = {str(name): str(value) for name, value in body["labels"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return ContainerRecord(program, labels) if program and labels else None
