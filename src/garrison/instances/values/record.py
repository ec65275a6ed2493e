"""What is stored about an instance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from garrison.instances.values.sleep import NOTHING_SLEPT, SleepRecord
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import Condition

__all__ = ["Costs", "InstanceRecord"]


@dataclass(frozen=True, slots=True)
class Costs:
    """What starts of an instance have cost, measured the last time.

    Attributes:
        start_seconds: from its start until it was ready.
        phases: seconds by startup phase.
        memory_bytes: held while serving, by device.
        sleep_seconds, wake_seconds: of the level of sleep that was used last; None until measured.
    """

    start_seconds: float | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    sleep_seconds: float | None = None
    wake_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """An instance at one time.

    Attributes:
        id: a number that is never used again.
        wanted: it should be running: a server that starts resumes it.
        port: the one it has; kept across restarts.
        revision: counts changes of the spec.
        sleep: where it is in its sleep, and what is known about that.
    """

    id: int
    spec: InstanceSpec
    condition: Condition
    created: datetime
    updated: datetime
    wanted: bool = False
    port: int | None = None
    revision: int = 1
    costs: Costs = Costs()
    sleep: SleepRecord = NOTHING_SLEPT
