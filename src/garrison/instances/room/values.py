"""What the decision about room is made of, and its answers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "HOST",
    "Decision",
    "Device",
    "Evict",
    "Granted",
    "Limits",
    "Need",
    "Never",
    "Part",
    "Place",
    "Resident",
    "Source",
    "Wait",
]

HOST = "host"
"""The device of engines that use system memory."""

Source = Literal["declared", "measured", "estimated", "default", "unknown"]
"""Where the bytes of a need come from. `default` is what the engine takes unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Device:
    """Memory in one place, in bytes.

    Attributes:
        key: the UUID of a GPU, or `host`.
        free: what the driver or the kernel reports. It may lag behind, in both directions.
        foreign: what other programs held when no instance was being started or stopped here.
        index: the driver's number of a GPU.
    """

    key: str
    total: int
    free: int
    foreign: int = 0
    index: int | None = None

    @property
    def title(self) -> str:
        """Its name for people."""
        if self.key == HOST:
            return "system memory"
        return self.key if self.index is None else f"GPU {self.index} ({self.key})"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of what an instance is estimated to take. `what` is for people, such as `weights`."""

    what: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Resident:
    """An instance that holds, or is about to hold, an engine.

    Attributes:
        held: bytes by device, as declared, measured or estimated.
        busy: it has requests, or is moving.
        moving: it is being started, woken or stopped, so that what it holds is about to change.
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
    moving: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """An instance that wants to run.

    Attributes:
        bytes: on each of its devices; None where nothing is known: then only counts limit it.
        count: how many GPUs it uses at once; 0 for system memory.
        devices: keys of the GPUs that it may use; empty for any.
        waited: seconds since its oldest caller asked.
        share: of each GPU's total, which is what vLLM takes; `bytes`, where more was measured.
        percent: it takes whole hundredths of a GPU: vLLM is told a share, which is rounded.
        host: bytes of system memory that it takes beside its GPUs.
        cache: bytes of the KV cache that the engine is to be told; None where the user told it, or it cannot be told.
        missing: devices that were declared and are not there.
        source: where the bytes come from.
        parts: what an estimate is made of, for all devices together.
    """

    name: str
    bytes: int | None = None
    count: int = 0
    devices: tuple[str, ...] = ()
    group: str | None = None
    waited: float = 0.0
    share: float | None = None
    percent: bool = False
    host: int = 0
    cache: int | None = None
    missing: tuple[str, ...] = ()
    source: Source = "unknown"
    parts: tuple[Part, ...] = ()

    def on(self, device: Device) -> int | None:
        """Bytes that it takes of one of its devices, or of system memory beside them; None where that is not known."""
        if self.count and device.key == HOST:
            return self.host
        if self.count and self.share is not None:
            return max(math.ceil(device.total * self.share), self.bytes or 0)
        if self.count and self.percent and self.bytes is not None and device.total:
            hundredths = -(-self.bytes * 100 // device.total)
            # One that does not fit keeps its own figure.
            return -(-hundredths * device.total // 100) if hundredths <= 100 else self.bytes
        return self.bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of this machine.

    Attributes:
        most: instances that hold an engine at once; None for no limit.
        groups: the same for each group.
        residency: seconds that an instance is left alone after it became ready.
        patience: seconds after which somebody who waits has a busy instance drained: it finishes what it has, and gets
            nothing new before that.
        evict: instances make room for others; without it, whoever finds no room waits until one ends by itself.
    """

    most: int | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
    residency: float = 10.0
    patience: float = 30.0
    evict: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """It fits now, on these devices."""

    devices: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Evict:
    """It fits once these have ended.

    Attributes:
        drain: those of them that are busy, and have to finish first.
        loss: what it costs to bring them back, by how long ago each was used: the smaller, the better the choice.
    """

    victims: tuple[str, ...]
    devices: tuple[str, ...]
    why: str
    drain: tuple[str, ...] = ()
    loss: float = 0.0


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


@dataclass(frozen=True, slots=True)
class Granted:
    """The room that an instance was given.

    Attributes:
        devices: keys of its GPUs; empty where it runs in system memory.
        held: bytes by device that are its own from now on.
        need: what it asked for.
        args: engine arguments that keep it within its room, to be put before the user's.
        env: variables for the same purpose, which the user's replace.
    """

    devices: tuple[str, ...] = ()
    held: Mapping[str, int] = field(default_factory=dict)
    need: Need | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
