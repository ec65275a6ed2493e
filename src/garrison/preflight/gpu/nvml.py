"""GPUs through NVML, by nvidia-ml-py."""

import types
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from garrison.preflight.gpu.gpus import Gpu, GpuProcess, throttle_words
from garrison.preflight.gpu.probe import ProbeError

__all__ = ["NvmlProbe"]

_MIB = 1024 * 1024


class NvmlProbe:
    """Reads through nvidia-ml-py. `library` is the module `pynvml`, or a test's replacement."""

    source = "nvml"

    def __init__(self, library: types.ModuleType | Any = None) -> None:
        self._library = library

    def read(self) -> tuple[Gpu, ...]:
        nvml = self._library or _import_pynvml()
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            raise ProbeError(str(error)) from None
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            return tuple(_from_nvml(nvml, index, handle) for index, handle in enumerate(handles))
        except nvml.NVMLError as error:
            raise ProbeError(str(error)) from None
        finally:
            with suppress(nvml.NVMLError):
                nvml.nvmlShutdown()


def _import_pynvml() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise ProbeError(str(error)) from None
    return pynvml


def _from_nvml(nvml: Any, index: int, handle: Any) -> Gpu:
    def ask(question: Callable[..., Any], *rest: Any) -> Any:
        """The result of a call; None where this GPU, or its mode (MIG), does not support it."""
        try:
            return question(handle, *rest)
        except nvml.NVMLError:
            return None

    memory = ask(nvml.nvmlDeviceGetMemoryInfo)
    utilization = ask(nvml.nvmlDeviceGetUtilizationRates)
    pstate = ask(nvml.nvmlDeviceGetPerformanceState)
    reasons = ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    processes = ask(nvml.nvmlDeviceGetComputeRunningProcesses) or []
    return Gpu(
        index=index,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(ask(nvml.nvmlDeviceGetName) or "unknown"),
        memory_total_mib=memory and int(memory.total) // _MIB,
        memory_free_mib=memory and int(memory.free) // _MIB,
        memory_used_mib=memory and int(memory.used) // _MIB,
        temperature_c=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        utilization_pct=utilization and int(utilization.gpu),
        # 32 is NVML_PSTATE_UNKNOWN.
        pstate=None if pstate is None or pstate == 32 else f"P{pstate}",
        clocks_event_reasons_active=None if reasons is None else f"0x{reasons:016x}",
        throttle_reasons=throttle_words(reasons),
        processes=tuple(
            GpuProcess(int(one.pid), None if one.usedGpuMemory is None else int(one.usedGpuMemory) // _MIB)
            for one in processes
        ),
        mig_uuids=tuple(_mig_uuids(nvml, handle)),
    )


def _mig_uuids(nvml: Any, handle: Any) -> Iterable[str]:
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
        if not current:
            return
        for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with suppress(nvml.NVMLError):
                yield _text(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)))
    except nvml.NVMLError:
        return


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
