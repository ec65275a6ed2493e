"""The twin of the command that `vllm-preflight` runs behind itself."""

from collections.abc import Iterable
from typing import Self

from garrison.base.clock import Clock

__all__ = ["MemoryChild"]


class MemoryChild:
    """`Child` without a process.

    Args:
        events: results of `wait`, in order: (exit code or None, signal to pass on or None). Then (None, None).
        clock: passes the seconds of each `wait`.

    Attributes:
        sent: signals that were sent to it, in order.
    """

    def __init__(self, events: Iterable[tuple[int | None, int | None]], *, pid: int = 4242, clock: Clock) -> None:
        self.pid = pid
        self.sent: list[int] = []
        self._events = list(events)
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def wait(self, seconds: float) -> tuple[int | None, int | None]:
        self._clock.sleep(seconds)
        return self._events.pop(0) if self._events else (None, None)

    def send(self, number: int) -> None:
        self.sent.append(number)
