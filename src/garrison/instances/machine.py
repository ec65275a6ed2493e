"""The memory of this machine, and what an instance takes of it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from garrison.base.errors import GarrisonError
from garrison.base.logs import logger
from garrison.engines import registry
from garrison.engines.options import normal_keys
from garrison.instances.host_memory import read_host
from garrison.instances.live import Live
from garrison.instances.room.values import HOST, Device
from garrison.net.thread_pool import ThreadPool
from garrison.preflight.gpu.gpus import Gpu

__all__ = ["MachineDevices"]

_MIB = 1024 * 1024
_KEEP_SECONDS = 0.5
_READ_SECONDS = 5.0
_WORKERS = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")

_log = logger(__name__)


class MachineDevices:
    """`Devices` of this machine: system memory by the kernel, GPUs by their driver.

    Args:
        gpus: reads the GPUs; blocks. Raises GarrisonError where the driver is broken.
        in_use: the environment variant of an engine, `cpu` or `cuda`; None where it is not known.
    """

    def __init__(
        self,
        pool: ThreadPool,
        gpus: Callable[[], Sequence[Gpu]],
        in_use: Callable[[str], str | None] = lambda _: None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._pool = pool
        self._read_gpus = gpus
        self._in_use = in_use
        self._environ = environ or {}
        self._devices: tuple[Device, ...] = ()
        self._read_at = float("-inf")

    async def read(self) -> Sequence[Device]:
        """As `Devices.read`. A driver that does not answer leaves what was read before."""
        now = asyncio.get_running_loop().time()
        if now - self._read_at >= _KEEP_SECONDS:
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    self._devices = await self._pool.run(self._read, "read the memory of this machine")
            except (GarrisonError, TimeoutError) as error:
                _log.warning("the memory of this machine cannot be read", error=str(error))
            self._read_at = asyncio.get_running_loop().time()
        return self._devices

    def need(self, live: Live) -> tuple[int | None, int]:
        """As `Devices.need`: what was declared, else what was measured the last time."""
        measured = live.record.costs.memory_bytes
        bytes_ = live.spec.memory_bytes
        if bytes_ is None and measured:
            bytes_ = max(measured.values())
        return bytes_, self._gpus_of(live)

    async def measure(self, live: Live) -> Mapping[str, int]:
        """As `Devices.measure`. On GPUs, what the driver says of its processes; in system memory, what is resident."""
        engine = live.engine
        if engine is None:
            return {}
        if self._gpus_of(live) == 0:
            found = engine.memory_bytes()
            return {HOST: found} if found else {}
        try:
            async with asyncio.timeout(_READ_SECONDS):
                gpus = await self._pool.run(self._read_gpus, "read the GPUs")
        except (GarrisonError, TimeoutError):
            return {}
        pids = engine.pids()
        held = {gpu.uuid: sum(one.used_mib or 0 for one in gpu.processes if one.pid in pids) * _MIB for gpu in gpus}
        return {uuid: count for uuid, count in held.items() if count}

    def _gpus_of(self, live: Live) -> int:
        if not any(one.key != HOST for one in self._devices) or live.spec.engine == "custom":
            return 0
        engine = registry.engine(live.spec.engine)
        use = engine.memory_use((), {**self._environ, **live.spec.env}, self._in_use(engine.name))
        if use.on == "host":
            return 0
        options = normal_keys(live.spec.options)
        count = 1
        for name in _WORKERS:
            value = options.get(name)
            count *= value if isinstance(value, int) and value > 0 else 1
        return count

    def _read(self) -> tuple[Device, ...]:
        host = read_host()
        gpus = (
            Device(gpu.uuid, gpu.memory_total_mib * _MIB, gpu.memory_free_mib * _MIB)
            for gpu in self._read_gpus()
            if gpu.memory_total_mib is not None and gpu.memory_free_mib is not None
        )
        return (*((host,) if host is not None else ()), *gpus)
