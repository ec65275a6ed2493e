"""What the manager is told about its machine."""

from dataclasses import dataclass, field

from garrison.instances.room.values import Limits

__all__ = ["ManagerSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerSettings:
    """Times are in seconds.

    Attributes:
        limits: how many may run, and how fairness is kept.
        idle: how long an instance without requests is kept, unless its spec says otherwise; 0 or less: forever.
        start_timeout: for a request that waits for an instance.
        queue: requests that may wait for one instance.
        drain_timeout: for the requests of an instance that is being stopped.
        stop_timeout: for the stop of an engine after that.
        sleep_timeout: for an engine that falls asleep or wakes up.
        memory_timeout: for its memory to be free, or back, after that.
        most: instances that may exist; None for no limit.
    """

    limits: Limits = field(default_factory=Limits)
    idle: float = 1800.0
    start_timeout: float = 120.0
    queue: int = 256
    drain_timeout: float = 30.0
    stop_timeout: float = 30.0
    sleep_timeout: float = 300.0
    memory_timeout: float = 5.0
    most: int | None = None
