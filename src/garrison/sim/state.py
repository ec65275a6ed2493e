"""What one simulated server is made of while it runs; routes read and change it."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from garrison.sim.adapters import AdapterReader
from garrison.sim.config import SimConfig
from garrison.sim.engine import Engine
from garrison.sim.faults import Faults
from garrison.sim.metrics import Counters

__all__ = ["ServerState", "Sleep"]

Sleep = Callable[[float], Awaitable[object]]


@dataclass(slots=True)
class ServerState:
    """
    Attributes:
        used: how often each rule of `faults.script` has matched.
        sleep: how simulated delays pass; tests replace it.
        awake: cleared while the engine sleeps; generation waits for it.
        died: told once when the engine has died.
        restart: start the engine anew after that many seconds of a closed port.
    """

    config: SimConfig
    reader: AdapterReader
    sleep: Sleep = asyncio.sleep
    counters: Counters = field(default_factory=Counters)
    used: tuple[int, ...] = ()
    died: Callable[[], None] = lambda: None
    restart: Callable[[float], None] = lambda _downtime: None
    faults: Faults = field(init=False)
    engine: Engine = field(init=False)
    draws: random.Random = field(init=False)
    awake: asyncio.Event = field(init=False)
    slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.faults = self.config.faults
        self.draws = random.Random(self.config.seed)  # noqa: S311 - reproducible on purpose
        self.awake = asyncio.Event()
        self.slots = asyncio.Semaphore(self.config.max_num_seqs)
        self.engine = self.new_engine(time.time())

    def new_engine(self, started_at: float) -> Engine:
        """An engine as it is right after a start: nothing but what `--lora-modules` names. `ValueError` if one of those
        cannot be loaded."""
        engine = Engine(self.config, self.reader, started_at=started_at)
        for module in self.config.lora_modules:
            failed = engine.load(module.name, module.path, in_place=False, base_model_name=module.base_model_name)
            if failed is not None:
                raise ValueError(failed.message)
        self.awake.set()
        return engine

    def set_faults(self, faults: Faults) -> None:
        self.faults = faults
        self.used = ()

    def identity(self) -> str:
        """Sixteen hexadecimal digits, as in vLLM's ids; reproducible under the seed."""
        return f"{self.draws.getrandbits(64):016x}"

    @property
    def base_names(self) -> tuple[str, ...]:
        """The names the base answers to now; another one under the disguise `wrong-base`."""
        return ("somebody/else",) if self.faults.disguise == "wrong-base" else self.config.names

    @contextlib.asynccontextmanager
    async def slot(self, model: str, tokens: int) -> AsyncIterator[None]:
        """One of the places in the running batch; counts waiting and running."""
        counters = self.counters
        counters.waiting += 1
        try:
            await self.awake.wait()
            await self.slots.acquire()
        finally:
            counters.waiting -= 1
        adapter = model if model in self.engine.adapters else ""
        counters.running += 1
        counters.running_tokens += tokens
        counters.running_adapters[adapter] += 1
        try:
            yield
        finally:
            counters.running -= 1
            counters.running_tokens -= tokens
            counters.running_adapters[adapter] -= 1
            self.slots.release()
