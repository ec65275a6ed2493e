"""GPUs as values, and their judgement against the thresholds. Pure."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from garrison.base.errors import InvalidError
from garrison.preflight.report import Thresholds

__all__ = ["Gpu", "GpuProcess", "Problem", "held_mib", "hides_all", "judge", "select", "throttle_words"]

# What CUDA_VISIBLE_DEVICES is set to in order to hide all GPUs.
_NONE = ("-1", "none", "void", "nodevfiles")

# Bits of nvmlClocksEventReasons (nvml.h); the names are those nvidia-smi prints.
_THROTTLE = {
    0x001: "idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """`used_mib` is None where the driver does not report it."""

    pid: int
    used_mib: int | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. Values that the driver does not report are None.

    Attributes:
        index: the driver's number (PCI order), which is also what `nvidia-smi` prints.
        clocks_event_reasons_active: why the clocks are held down, as the driver's bit mask in hex.
        throttle_reasons: the same in words; `idle` is not a fault.
        mig_uuids: the MIG devices cut from it; asking for one selects its GPU.
    """

    index: int
    uuid: str
    name: str
    memory_total_mib: int | None = None
    memory_free_mib: int | None = None
    memory_used_mib: int | None = None
    temperature_c: int | None = None
    utilization_pct: int | None = None
    pstate: str | None = None
    clocks_event_reasons_active: str | None = None
    throttle_reasons: tuple[str, ...] = ()
    processes: tuple[GpuProcess, ...] = ()
    mig_uuids: tuple[str, ...] = ()

    def to_json(self, warnings: Sequence[str]) -> dict[str, Any]:
        body = asdict(self)
        del body["mig_uuids"]
        return body | {"warnings": list(warnings)}


@dataclass(frozen=True, slots=True)
class Problem:
    """`condition` is `temperature`, `memory` or `utilization`."""

    gpu: int
    condition: str
    message: str
    fatal: bool


def judge(gpus: Iterable[Gpu], thresholds: Thresholds) -> tuple[Problem, ...]:
    """Every threshold that a GPU exceeds, and every fatal one whose value the driver does not report."""
    found: list[Problem] = []
    for gpu in gpus:
        for condition, value, message in _conditions(gpu, thresholds):
            if value is None:
                if condition in thresholds.fail_on:
                    found.append(Problem(gpu.index, condition, f"the driver does not report its {condition}", False))
            elif message:
                found.append(Problem(gpu.index, condition, message, condition in thresholds.fail_on))
    return tuple(found)


def _conditions(gpu: Gpu, limits: Thresholds) -> Iterable[tuple[str, int | None, str]]:
    free, temperature, utilization = gpu.memory_free_mib, gpu.temperature_c, gpu.utilization_pct
    too_full = free is not None and free < limits.min_free_gb * 1024
    too_hot = temperature is not None and temperature > limits.max_temp_c
    too_busy = utilization is not None and utilization > limits.max_util_pct
    yield "temperature", temperature, f"{temperature} °C, limit {limits.max_temp_c} °C" if too_hot else ""
    yield "memory", free, f"{free} MiB free, at least {limits.min_free_gb:g} GiB wanted" if too_full else ""
    yield "utilization", utilization, f"{utilization} % busy, limit {limits.max_util_pct} %" if too_busy else ""


def select(gpus: Sequence[Gpu], devices: Sequence[str]) -> tuple[Gpu, ...]:
    """The GPUs that `devices` names by index, UUID or the beginning of one, as CUDA_VISIBLE_DEVICES does; all when
    it is empty. In the order of `devices`, each once.

    Raises:
        InvalidError: a name that fits no GPU, or more than one.
    """
    if not devices:
        return tuple(gpus)
    chosen: dict[int, Gpu] = {}
    for device in _visible(devices):
        matches = [gpu for gpu in gpus if _matches(gpu, device)]
        if len(matches) != 1:
            what = "matches no GPU" if not matches else f"matches {len(matches)} GPUs"
            raise InvalidError(
                f"GPU device {device!r} {what}",
                hint="The GPUs are "
                + (", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in gpus) or "none")
                + "; correct VLLM_GPU_DEVICES or CUDA_VISIBLE_DEVICES.",
            )
        chosen[matches[0].index] = matches[0]
    return tuple(chosen.values())


def hides_all(devices: Sequence[str]) -> bool:
    """Whether `devices` name no GPU at all, as opposed to none in particular."""
    return bool(devices) and not _visible(devices)


def _visible(devices: Sequence[str]) -> tuple[str, ...]:
    """CUDA reads names up to the first that stands for no device."""
    return tuple(itertools.takewhile(lambda device: device.lower() not in _NONE, devices))


def _matches(gpu: Gpu, device: str) -> bool:
    if device.isascii() and device.isdigit():
        return gpu.index == int(device)
    # `MIG-GPU-<uuid>/<gi>/<ci>` is the older way to name a MIG device.
    if device.startswith("MIG-GPU-"):
        return gpu.uuid == device.removeprefix("MIG-").partition("/")[0]
    return len(device) > 4 and any(uuid.startswith(device) for uuid in (gpu.uuid, *gpu.mig_uuids))


def held_mib(gpus: Iterable[Gpu], pids: Iterable[int]) -> dict[str, int]:
    """MiB that `pids` hold, by GPU UUID; 0 where the driver lists them without an amount."""
    wanted = set(pids)
    held: dict[str, int] = {}
    for gpu in gpus:
        for process in gpu.processes:
            if process.pid in wanted:
                held[gpu.uuid] = held.get(gpu.uuid, 0) + (process.used_mib or 0)
    return held


def throttle_words(mask: int | None) -> tuple[str, ...]:
    """The driver's bit mask of reasons in words."""
    return tuple(word for bit, word in _THROTTLE.items() if mask and mask & bit)
