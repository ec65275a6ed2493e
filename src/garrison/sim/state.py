"""The state of one simulated server, which its routes read and change."""

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
from garrison.sim.memory import Memory
from garrison.sim.metrics import Counters

__all__ = ["ServerState", "Sleep"]

Sleep = Callable[[float], Awaitable[object]]


@dataclass(slots=True)
class ServerState:
    """The mutable parts of a server.

    Attributes:
        used: how often each rule of `faults.script` has matched.
        sleep: waits for simulated delays; a test replaces it.
        awake: cleared while the engine sleeps, or waits for the end of what runs to do so; generation waits for it.
        idle: set while no request runs.
        memory: what the engine holds while it is awake.
        died: called when the engine has died.
        restart: called to start a new engine after that many seconds with the port closed.
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
    idle: asyncio.Event = field(init=False)
    memory: Memory = field(init=False)
    slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.faults = self.config.faults
        self.draws = random.Random(self.config.seed)  # noqa: S311 - reproducible on purpose
        self.awake = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.memory = Memory(self.config.memory_mib)
        self.slots = asyncio.Semaphore(self.config.max_num_seqs)
        self.engine = self.new_engine(time.time())

    def new_engine(self, started_at: float) -> Engine:
        """Return an engine as it is after a start, with the adapters of `--lora-modules` alone.

        Raises:
            ValueError: one of them cannot be loaded.
        """
        engine = Engine(self.config, self.reader, started_at=started_at)
        for module in self.config.lora_modules:
            failed = engine.load(module.name, module.path, in_place=False, base_model_name=module.base_model_name)
            if failed is not None:
                raise ValueError(failed.message)
        self.awake.set()
        self.memory.take()
        return engine

    def set_faults(self, faults: Faults) -> None:
        self.faults = faults
        self.used = ()

    def identity(self) -> str:
        """Return sixteen hexadecimal digits, as in vLLM's ids; reproducible with the seed."""
        return f"{self.draws.getrandbits(64):016x}"

    @property
    def base_names(self) -> tuple[str, ...]:
        """The names of the base model now; another one under the disguise `wrong-base`."""
        return ("somebody/else",) if self.faults.disguise == "wrong-base" else self.config.names

    @contextlib.asynccontextmanager
    async def slot(self, model: str, tokens: int) -> AsyncIterator[None]:
        """Hold a place in the running batch, and count waiting and running requests."""
        counters = self.counters
        counters.waiting += 1
        try:
            await self.awake.wait()
            await self.slots.acquire()
        finally:
            counters.waiting -= 1
        adapter = model if model in self.engine.adapters else ""
        counters.running += 1
        self.idle.clear()
        counters.running_tokens += tokens
        counters.running_adapters[adapter] += 1
        try:
            yield
        finally:
            counters.running -= 1
            if not counters.running:
                self.idle.set()
            counters.running_tokens -= tokens
            counters.running_adapters[adapter] -= 1
            self.slots.release()
