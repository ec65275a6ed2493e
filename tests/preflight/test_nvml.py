"""NVML through a library in its place: the names and shapes are those of nvidia-ml-py."""

from types import SimpleNamespace
from typing import Any

import pytest

from garrison.preflight.gpu.gpus import GpuProcess
from garrison.preflight.gpu.nvml import NvmlProbe
from garrison.preflight.gpu.probe import ProbeError

MIB = 1024 * 1024


class NvmlError(Exception):
    pass


class Library:
    """Two GPUs: one that answers everything, one in MIG mode that answers little."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *, init: str | None = None, count: int = 2) -> None:
        self.init_error, self.count, self.open = init, count, False

    def nvmlInit(self) -> None:  # noqa: N802 - the library's names
        if self.init_error:
            raise NvmlError(self.init_error)
        self.open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, list[Any]] = {
            "nvmlDeviceGetUUID": ["GPU-a", "GPU-b"],
            "nvmlDeviceGetName": [b"NVIDIA H200", "NVIDIA A100"],
            "nvmlDeviceGetMemoryInfo": [SimpleNamespace(total=100 * MIB, free=60 * MIB, used=40 * MIB), None],
            "nvmlDeviceGetUtilizationRates": [SimpleNamespace(gpu=0, memory=1), None],
            "nvmlDeviceGetTemperature": [31, 30],
            "nvmlDeviceGetPerformanceState": [0, 32],
            "nvmlDeviceGetCurrentClocksThrottleReasons": [0x44, None],
            "nvmlDeviceGetComputeRunningProcesses": [
                [SimpleNamespace(pid=7, usedGpuMemory=30 * MIB), SimpleNamespace(pid=8, usedGpuMemory=None)],
                [],
            ],
            "nvmlDeviceGetMigMode": [(0, 0), (1, 1)],
            "nvmlDeviceGetMaxMigDeviceCount": [0, 2],
        }

        def answer(handle: Any, *_: Any) -> Any:
            if name == "nvmlDeviceGetUUID" and isinstance(handle, str):
                return handle
            found = answers[name][handle]
            if found is None:
                raise NvmlError("Not Supported")
            return found

        return answer

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMigDeviceHandleByIndex(self, _handle: int, number: int) -> str:  # noqa: N802
        if number:
            raise NvmlError("Not Found")
        return "MIG-c"


def test_every_field() -> None:
    library = Library()
    first, second = NvmlProbe(library).read()
    assert not library.open
    assert (first.index, first.uuid, first.name) == (0, "GPU-a", "NVIDIA H200")
    assert (first.memory_total_mib, first.memory_free_mib, first.memory_used_mib) == (100, 60, 40)
    assert (first.temperature_c, first.utilization_pct, first.pstate) == (31, 0, "P0")
    assert first.clocks_event_reasons_active == "0x0000000000000044"
    assert first.throttle_reasons == ("sw_power_cap", "hw_thermal_slowdown")
    assert first.processes == (GpuProcess(7, 30), GpuProcess(8, None))
    assert (second.memory_total_mib, second.utilization_pct, second.pstate) == (None, None, None)
    assert second.mig_uuids == ("MIG-c",)


def test_no_driver() -> None:
    with pytest.raises(ProbeError, match="Driver Not Loaded"):
        NvmlProbe(Library(init="Driver Not Loaded")).read()


def test_a_driver_without_gpus_is_a_reading_of_none() -> None:
    assert NvmlProbe(Library(count=0)).read() == ()


def test_the_names_are_in_the_real_library() -> None:
    import pynvml

    names = [name for name in vars(Library) if name.startswith("nvml")]
    asked = [
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetPerformanceState",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMaxMigDeviceCount",
        "NVML_TEMPERATURE_GPU",
        "NVMLError",
    ]
    assert [name for name in (*names, *asked) if not hasattr(pynvml, name)] == []
