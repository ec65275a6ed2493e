"""The twin of engines that sleep, and what may go wrong with it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from garrison.base.errors import SleepFailedError

if TYPE_CHECKING:
    from garrison.testing.instances import MemoryRunner, MemoryRunningEngine

__all__ = ["MemorySleeper", "SleepFaults"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SleepFaults:
    """What goes wrong with sleep; named as the simulator's faults.

    Attributes:
        sleep_crashes, wake_crashes: the engine ends.
    """

    sleep_hangs: bool = False
    sleep_keeps_memory: bool = False
    sleep_crashes: bool = False
    wake_fails: bool = False
    wake_wrong_answer: bool = False
    wake_crashes: bool = False


class MemorySleeper:
    """`Sleeper` of an engine without a process. Its state belongs to the engine, and survives the server.

    Attributes:
        level: None while it is awake.
        adapters: paths by name, beside the base model.
        calls: `sleep 1`, `wake 1`, in order.
    """

    def __init__(self, engine: "MemoryRunningEngine", runner: "MemoryRunner") -> None:
        self.levels: Mapping[int, str] = {1: "host", 2: "dropped"}
        self.version = "1.0"
        self.level: int | None = None
        self.adapters: dict[str, str] = {}
        self.calls: list[str] = []
        self.wrong = False
        self.kept = False
        self.engine = engine
        self._runner = runner

    @property
    def holds_memory(self) -> bool:
        return self.level is None or self.kept

    async def asleep(self) -> bool | None:
        await asyncio.sleep(0)
        return None if self.engine.over else self.level is not None

    async def sleep(self, level: int, seconds: float) -> None:
        self.calls.append(f"sleep {level}")
        self._may_be_over()
        faults = self._runner.sleep_faults
        await asyncio.sleep(1e6 if faults.sleep_hangs else self._runner.sleep_seconds)
        if faults.sleep_crashes:
            self.engine.crash("it ended while it fell asleep")
        self._may_be_over()
        self.level, self.kept = level, faults.sleep_keeps_memory
        self._runner.changed(self.engine)

    async def wake(self, level: int, seconds: float) -> int:
        self.calls.append(f"wake {level}")
        self._may_be_over()
        await asyncio.sleep(self._runner.wake_seconds)
        faults = self._runner.sleep_faults
        if faults.wake_crashes:
            self.engine.crash("it ended while it woke up")
        self._may_be_over()
        if faults.wake_fails:
            raise SleepFailedError("the engine answered 500 to POST /wake_up")
        self.level, self.wrong = None, self.wrong or faults.wake_wrong_answer
        self._runner.changed(self.engine)
        return len(self.adapters) if level == 2 else 0

    async def models(self) -> Mapping[str, str]:
        self._may_be_over()
        return {self.engine.upstream.model: "", **self.adapters}

    async def answer(self, model: str) -> str:
        await asyncio.sleep(0)
        self._may_be_over()
        return f"{model} answers{' nonsense' if self.wrong else ''}"

    def _may_be_over(self) -> None:
        if self.engine.over:
            raise SleepFailedError("the engine has ended")
