"""The seam to engines: started, adopted, stopped, put to sleep. `EngineRunner` runs them below shims."""

from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from garrison.base.errors import GarrisonError
from garrison.instances.values.spec import InstanceSpec

__all__ = ["Launch", "Progress", "Runner", "RunningEngine", "Sleeper", "Upstream"]


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where an engine answers, and with which key. `model` is the name it knows its model by."""

    url: str
    key: str | None = field(default=None, repr=False)
    model: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """One start.

    Attributes:
        devices: UUIDs of the GPUs to run on; empty leaves the choice to the engine.
        stop_timeout: seconds for a stop.
        room_args: engine arguments that keep it within the room it was given; the user's come after them and win.
        room_env: variables for the same purpose, such as those that choose the GPUs; the user's replace them.
    """

    spec: InstanceSpec
    port: int
    devices: tuple[str, ...] = ()
    stop_timeout: float = 30.0
    room_args: tuple[str, ...] = ()
    room_env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a start is: the phase that the engine's output shows, and seconds since the start."""

    phase: str
    seconds: float
    memory_bytes: int = 0


class Sleeper(Protocol):
    """Puts one engine to sleep and wakes it. Whoever calls keeps requests away from it, and sets deadlines.

    Attributes:
        levels: numbers of the levels, and where the weights are meanwhile: `host` or `dropped`.
        version: of the engine, as it says itself.
    """

    levels: Mapping[int, str]
    version: str

    async def asleep(self) -> bool | None:
        """Whether it is asleep; None where it does not tell."""

    async def sleep(self, level: int, seconds: float) -> None:
        """Put it to sleep. Requests in progress are finished first where the engine can do that.

        Raises:
            SleepFailedError: it refused, or did not answer within `seconds`. Whether it sleeps is then not known.
        """

    async def wake(self, level: int, seconds: float) -> int:
        """Wake it from this level; harmless where it is awake. Return how many adapters were loaded again.

        Raises:
            SleepFailedError: it refused, or did not answer in time. How far it is awake is then not known.
        """

    async def models(self) -> Mapping[str, str]:
        """Return what it serves: names, and the paths of adapters; the base model has an empty path.

        Raises:
            SleepFailedError: it does not tell.
        """

    async def answer(self, model: str) -> str:
        """Return what a model answers to a fixed prompt, or how it refuses. The same each time.

        Raises:
            SleepFailedError: no answer came in time.
        """


class RunningEngine(Protocol):
    """An engine that is ready.

    Attributes:
        pid: of its main process; None where it is not known.
        seconds: from its start until it was ready; None for one that was adopted.
    """

    upstream: Upstream
    pid: int | None
    seconds: float | None
    phases: Mapping[str, float]

    def memory_bytes(self) -> int:
        """Resident memory of its processes."""

    def pids(self) -> frozenset[int]:
        """Its processes."""

    async def sleeper(self) -> Sleeper | None:
        """Return how it is put to sleep; None where it cannot be. Asks the engine, within seconds."""

    async def context_length(self) -> int | None:
        """Return the context that it serves, in tokens; None where it does not tell. Asks it, within seconds."""

    async def ended(self) -> GarrisonError | None:
        """Wait until it has ended by itself; the error says why. None if `stop` ended it."""

    async def stop(self, reason: str) -> None:
        """Stop it, and return when none of its processes is left."""

    async def leave(self) -> None:
        """Let go of it; it goes on, to be adopted later."""


class LeftEngine(Protocol):
    """An engine that an earlier server started. Whether it is ready is not known."""

    async def ready(self, progress: Callable[[Progress], None]) -> RunningEngine:
        """Wait until it is ready. A caller that is cancelled ends it.

        Raises:
            GarrisonError: it has ended, or was not ready in time and has been ended.
        """


class Runner(Protocol):
    async def start(self, launch: Launch, progress: Callable[[Progress], None]) -> RunningEngine:
        """Start an engine and wait until it is ready. A caller that is cancelled leaves nothing behind.

        Raises:
            GarrisonError: it cannot be started, ended by itself, or was not ready in time.
        """

    async def find(self, launch: Launch) -> LeftEngine | None:
        """Return the engine that an earlier server started; None if it does not run any more. Takes seconds at most.

        What is left of one that cannot be used is stopped.
        """

    async def forget(self, name: str) -> None:
        """Delete what is kept on disk about an instance that does not run."""

    def free_port(self, taken: Container[int], kept: int | None = None) -> Awaitable[int]:
        """Return a port of the configured range that can be bound now, is not in `taken`, and was not given to another
        instance a moment ago.

        Args:
            kept: the port that the instance had; it gets it again, whatever `taken` says, if it can be bound.

        Raises:
            ConflictError: there is none.
        """
