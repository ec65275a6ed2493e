"""The memory of this machine, and what an instance takes of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from garrison.base.errors import GarrisonError
from garrison.base.logs import logger
from garrison.base.settings import Settings
from garrison.engines import registry
from garrison.engines.options import normal_keys, to_args
from garrison.instances.demand import Facts, fills_later, grant, need_of
from garrison.instances.host_memory import host_readers
from garrison.instances.live import Live
from garrison.instances.memory_reader import MemoryReader, Reading, first_reading, gpu_readers
from garrison.instances.model_shape import read_shape
from garrison.instances.room.estimate import ModelShape
from garrison.instances.room.ledger import not_back
from garrison.instances.room.values import HOST, Device, Granted, Need
from garrison.instances.values.spec import InstanceSpec
from garrison.launch.backends import backend_of
from garrison.models.hub_caches import user_hub_caches
from garrison.models.request import ResolveRequest
from garrison.net.thread_pool import ThreadPool

__all__ = ["MachineDevices"]

T = TypeVar("T")
_KEEP_SECONDS = 0.5
_READ_SECONDS = 15.0
"""For the readers of GPUs and of system memory, one after the other; each has a limit of its own."""
_SHAPE_SECONDS = 5.0
_KEEP_SHAPE_SECONDS = 300.0
_ASK_AGAIN_SECONDS = 10.0
"""For a model that is not on this machine yet."""
_MOST_KNOWN = 4096
_BACK_SECONDS = 5.0
_BACK_POLL_SECONDS = 0.25

_log = logger(__name__)


class MachineDevices:
    """`Devices` of this machine: system memory by the kernel, GPUs by their driver.

    Args:
        pool: threads for readers, which may block.
        in_use: the environment variant of an engine, `cpu` or `cuda`; None where it is not known.
        gpus, host: the readers, in the order in which they are tried; those of this machine if None.
    """

    def __init__(
        self,
        pool: ThreadPool,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        in_use: Callable[[str], str | None] = lambda _: None,
        gpus: Sequence[MemoryReader] | None = None,
        host: Sequence[MemoryReader] | None = None,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._environ = environ
        self._in_use = in_use
        self._gpu_readers = gpu_readers() if gpus is None else gpus
        self._host_readers = host_readers() if host is None else host
        self._devices: tuple[Device, ...] = ()
        self._gpus = Reading()
        self._read_at = float("-inf")
        self._reading: asyncio.Future[tuple[tuple[Device, ...], Reading]] | None = None
        self._known: dict[str, tuple[InstanceSpec, float, Facts]] = {}

    def reconfigure(self, settings: Settings) -> None:
        """Take other settings, from the next reading on."""
        self._settings = settings

    async def read(self) -> Sequence[Device]:
        """As `Devices.read`. What does not answer leaves what was read before."""
        if asyncio.get_running_loop().time() - self._read_at >= _KEEP_SECONDS:
            await self._read_now()
        return self._devices

    async def look_up(self, live: Live) -> None:
        """As `Devices.look_up`. What a model's files tell is kept for some minutes."""
        await self.read()
        now = asyncio.get_running_loop().time()
        known = self._known.get(live.name)
        if known is not None and known[0] == live.spec and now < known[1]:
            return
        spec, has_gpus = live.spec, bool(self._gpus.devices)
        facts = await self._call(lambda: self._read_facts(spec, has_gpus), f"size {live.name}", Facts(spec))
        kept = _KEEP_SHAPE_SECONDS if facts.model is not None else _ASK_AGAIN_SECONDS
        self._known.pop(live.name, None)
        self._known[live.name] = (spec, now + kept, facts)
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def need(self, live: Live) -> Need:
        """As `Devices.need`."""
        return need_of(self._facts(live))

    def grant(self, live: Live, need: Need, keys: Sequence[str]) -> Granted:
        """As `Devices.grant`."""
        return grant(self._facts(live), need, keys, self._devices, variable=self._gpus.variable)

    async def measure(self, live: Live) -> Mapping[str, int]:
        """As `Devices.measure`. On GPUs, what the driver says of its processes; in system memory, what is resident."""
        engine, claimed = live.engine, dict(live.held or {})
        if engine is None:
            return {}
        on: Literal["gpu", "host"] = "gpu" if any(key != HOST for key in claimed) or live.devices else "host"
        if on == "host":
            resident = await self._call(engine.memory_bytes, f"measure {live.name}", 0)
            found = {HOST: resident} if resident else {}
        else:
            await self._read_now()
            pids = await self._call(engine.pids, f"find the processes of {live.name}", frozenset[int]())
            held = {key: _of(pids, by_pid) for key, by_pid in self._gpus.held.items()}
            found = {key: count for key, count in held.items() if count}
            # What it takes beside its GPUs cannot be told from pages of its files, so the estimate stays.
            found |= {HOST: claimed[HOST]} if found and claimed.get(HOST) else {}
        if live.spec.memory_bytes is not None or fills_later(live.spec, on):
            found = {key: max(count, claimed.get(key, 0)) for key, count in found.items()}
        return found

    @contextlib.asynccontextmanager
    async def released(self, live: Live) -> AsyncIterator[None]:
        """As `Devices.released`: asks the driver every quarter of a second, for five seconds at most."""
        held = {key: count for key, count in (live.held or {}).items() if key != HOST and count}
        if held:
            await self._read_now()
        before = self._devices
        yield
        if not held:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _BACK_SECONDS
        await self._read_now()
        while (missing := not_back(held, before, self._devices)) and loop.time() < deadline:
            await asyncio.sleep(_BACK_POLL_SECONDS)
            await self._read_now()
        if missing:
            _log.warning("memory is not back after a stop", name=live.name, missing=missing, seconds=_BACK_SECONDS)

    def _facts(self, live: Live) -> Facts:
        known = self._known.get(live.name)
        facts = known[2] if known is not None and known[0] == live.spec else Facts(live.spec)
        return replace(facts, costs=live.record.costs, devices=self._devices)

    def _read_facts(self, spec: InstanceSpec, has_gpus: bool) -> Facts:
        if spec.engine == "custom":
            return Facts(spec, on="gpu" if has_gpus and spec.devices else "host")
        engine = registry.engine(spec.engine)
        backend = backend_of(self._settings, engine.name)
        given, env = backend.args, {**self._environ, **backend.env, **spec.env}
        try:
            args = (*given, *to_args(normal_keys(spec.options), engine.catalogue()))
            args = (*engine.file_args(args), *args)
        except GarrisonError:  # the start will say so
            args = given
        use = engine.memory_use(args, env, self._in_use(engine.name))
        on = use.on if has_gpus or spec.devices else "host"
        return Facts(spec, on=on, args=args, env=env, visible=use.visible, model=self._shape(spec, args))

    def _shape(self, spec: InstanceSpec, args: Sequence[str]) -> ModelShape | None:
        if spec.model is None:
            return None
        caches = user_hub_caches(self._environ)
        try:
            request = ResolveRequest.from_settings(self._settings, spec.model, offline=True, hub_caches=caches)
        except GarrisonError:
            return None
        return read_shape(spec.engine, request, args)

    async def _call(self, call: Callable[[], T], what: str, default: T) -> T:
        """Make a call that reads the disk or the process table; its default if it fails or hangs."""
        try:
            async with asyncio.timeout(_SHAPE_SECONDS):
                return await self._pool.run(call, what)
        except (GarrisonError, TimeoutError, OSError) as error:
            _log.warning("this took too long or failed", what=what, error=str(error))
            return default

    async def _read_now(self) -> None:
        """Read, or join the reading that is going on: a driver that hangs gets one thread, not one for each look."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._pool.run(self._read, "read the memory of this machine"))
        try:
            async with asyncio.timeout(_READ_SECONDS):
                self._devices, self._gpus = await asyncio.shield(self._reading)
        except (GarrisonError, OSError, TimeoutError) as error:
            _log.warning("the memory of this machine cannot be read", error=str(error))
        self._read_at = asyncio.get_running_loop().time()

    def _read(self) -> tuple[tuple[Device, ...], Reading]:
        gpus, _ = first_reading(self._gpu_readers)
        host, reasons = first_reading(self._host_readers)
        if not host.devices and reasons:
            _log.warning("system memory cannot be read", reasons=reasons)
        return (*_limited(host.devices, self._settings.memory_limit), *gpus.devices), gpus


def _limited(host: Sequence[Device], limit: int | None) -> tuple[Device, ...]:
    """System memory, of which instances may take no more than `limit` bytes all together."""
    if limit is None:
        return tuple(host)
    found = host[0] if host else Device(HOST, limit, limit)
    return (replace(found, total=min(found.total, limit), free=min(found.free, limit)),)


def _of(pids: frozenset[int], by_pid: Mapping[int, int]) -> int:
    return sum(count for pid, count in by_pid.items() if pid in pids)
