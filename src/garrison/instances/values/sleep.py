"""What is remembered about the sleep of an instance: where it is in it, what it cost, and what went wrong."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["NOTHING_SLEPT", "SleepCost", "SleepRecord", "method"]


@dataclass(frozen=True, slots=True)
class SleepCost:
    """What one level of sleep has cost, measured the last time. Seconds; `wake` is None until measured.

    Attributes:
        host_bytes: system memory that was held meanwhile.
    """

    sleep: float
    wake: float | None = None
    host_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class SleepRecord:
    """Attributes:
    level: it is asleep at, falls asleep to, or is being woken from; None only while it is known to be awake.
    devices: GPUs that it comes back on.
    held: bytes by device that it holds meanwhile.
    answers: what each model answered before the first sleep of this engine, by `name@path`.
    costs: by level.
    quarantine: why a method is not used any more, by `method`.
    """

    level: int | None = None
    devices: tuple[str, ...] = ()
    held: Mapping[str, int] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[int, SleepCost] = field(default_factory=dict)
    quarantine: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"costs": {str(level): asdict(cost) for level, cost in self.costs.items()}}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "SleepRecord":
        """The inverse of `to_json`. What is missing has its default."""
        return cls(
            level=body.get("level"),
            devices=tuple(body.get("devices", ())),
            held=dict(body.get("held", {})),
            answers=dict(body.get("answers", {})),
            costs={int(level): SleepCost(**cost) for level, cost in body.get("costs", {}).items()},
            quarantine=dict(body.get("quarantine", {})),
        )


NOTHING_SLEPT = SleepRecord()


def method(engine: str, version: str, model: str | None, level: int) -> str:
    """Name a level of sleep of one version of an engine with one model: what a quarantine is about."""
    return f"{engine} {version} with {model or 'no model'}: sleep level {level}"
