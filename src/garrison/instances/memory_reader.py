"""The seam to the memory of one kind of device, and the readers of GPUs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from garrison.instances.room.values import Device
from garrison.preflight.gpu.amd_smi import AmdSmiProbe
from garrison.preflight.gpu.nvidia_smi import NvidiaSmiProbe
from garrison.preflight.gpu.nvml import NvmlProbe
from garrison.preflight.gpu.probe import GpuProbe, ProbeError

__all__ = ["NOTHING", "GpuMemory", "MemoryReader", "Reading", "first_reading", "gpu_readers"]

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read at one time.

    Attributes:
        devices: those that tell their memory.
        held: bytes by device and process, where the driver tells.
        variable: the one that says to an engine which of the devices to use; empty where there is no choice.
    """

    devices: tuple[Device, ...] = ()
    held: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    variable: str = ""


NOTHING = Reading()


class MemoryReader(Protocol):
    source: str
    """How it reads, for messages: `nvml`, `amd-smi`, `meminfo`."""

    def read(self) -> Reading:
        """Read every device of this kind. Blocks, within a limit.

        Raises:
            ProbeError: there is none, or it cannot be read.
        """


class GpuMemory:
    """The memory of GPUs, by any way to their driver.

    Args:
        variable: as in `Reading`.
    """

    def __init__(self, probe: GpuProbe, variable: str) -> None:
        self.source = probe.source
        self._probe = probe
        self._variable = variable

    def read(self) -> Reading:
        """As `MemoryReader.read`."""
        gpus = self._probe.read()
        devices = tuple(
            Device(gpu.uuid, gpu.memory_total_mib * _MIB, gpu.memory_free_mib * _MIB, index=gpu.index)
            for gpu in gpus
            if gpu.memory_total_mib is not None and gpu.memory_free_mib is not None
        )
        held: dict[str, dict[int, int]] = {}
        for gpu in gpus:
            for process in gpu.processes:
                own = held.setdefault(gpu.uuid, {})
                own[process.pid] = own.get(process.pid, 0) + (process.used_mib or 0) * _MIB
        return Reading(devices, held, self._variable)


def gpu_readers() -> tuple[MemoryReader, ...]:
    """The ways to the drivers of GPUs, in the order in which they are tried. NVIDIA's, then AMD's."""
    return (
        GpuMemory(NvmlProbe(), "CUDA_VISIBLE_DEVICES"),
        GpuMemory(NvidiaSmiProbe(), "CUDA_VISIBLE_DEVICES"),
        GpuMemory(AmdSmiProbe(), "ROCR_VISIBLE_DEVICES"),
    )


def first_reading(readers: Iterable[MemoryReader]) -> tuple[Reading, tuple[str, ...]]:
    """The first reading that finds a device, and why the readers before it found none; an empty one if none does."""
    reasons: list[str] = []
    for reader in readers:
        try:
            found = reader.read()
        except ProbeError as error:
            reasons.append(f"{reader.source}: {error}")
            continue
        if found.devices:
            return found, tuple(reasons)
        reasons.append(f"{reader.source}: no device tells its memory")
    return NOTHING, tuple(reasons)
