"""What the decision about room is made of, and its answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["HOST", "Decision", "Device", "Evict", "Limits", "Need", "Never", "Place", "Resident", "Wait"]

HOST = "host"
"""The device of engines that use system memory."""


@dataclass(frozen=True, slots=True)
class Device:
    """Memory in one place, in bytes.

    Attributes:
        key: the UUID of a GPU, or `host`.
        free: what the driver or the kernel reports. It may lag behind, in both directions.
    """

    key: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Resident:
    """An instance that holds, or is about to hold, an engine.

    Attributes:
        held: bytes by device, as declared, measured or estimated.
        busy: it has requests, or is being started, woken or stopped.
        pinned: it must not be evicted.
        idle: seconds since the end of its last request.
        resident: seconds since it became ready.
        asleep: it holds what it needs to wake up, and counts as none that runs.
        cost: seconds to bring it back, as measured on this machine, times its declared weight.
    """

    name: str
    held: Mapping[str, int] = field(default_factory=dict)
    busy: bool = False
    pinned: bool = False
    group: str | None = None
    priority: int = 0
    idle: float = 0.0
    resident: float = 0.0
    cost: float = 1.0
    asleep: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """An instance that wants to run.

    Attributes:
        bytes: on each of its devices; None where nothing is known: then only counts limit it.
        count: how many GPUs it uses at once; 0 for system memory.
        devices: keys of the GPUs that it may use; empty for any.
        waited: seconds since its oldest caller asked.
    """

    name: str
    bytes: int | None = None
    count: int = 0
    devices: tuple[str, ...] = ()
    group: str | None = None
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of this machine.

    Attributes:
        most: instances that hold an engine at once; None for no limit.
        groups: the same for each group.
        residency: seconds that an instance is left alone after it became ready.
        patience: seconds after which somebody who waits has a busy instance drained: it finishes what it has, and gets
            nothing new before that.
    """

    most: int | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
    residency: float = 10.0
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """It fits now, on these devices."""

    devices: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Evict:
    """It fits once these have ended. `drain` are busy, and have to finish first."""

    victims: tuple[str, ...]
    devices: tuple[str, ...]
    why: str
    drain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """It could fit, but whoever would make room is busy, or became ready only just now.

    Attributes:
        seconds: when to ask again at the latest; None: when something changes.
    """

    why: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Never:
    """It cannot fit on this machine, whatever ends."""

    why: str


Decision = Place | Evict | Wait | Never
