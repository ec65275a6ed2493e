"""The twin of the GPU driver."""

from collections.abc import Sequence

from garrison.preflight.gpu.gpus import Gpu
from garrison.preflight.gpu.probe import ProbeError

__all__ = ["MemoryGpuProbe"]


class MemoryGpuProbe:
    """`GpuProbe` with scripted readings.

    Args:
        readings: returned in order, the last one again and again; None raises ProbeError, as a missing driver does.
        source: `nvml` or `nvidia-smi`.
    """

    def __init__(self, *readings: Sequence[Gpu] | None, source: str = "nvml") -> None:
        self.source = source
        self._readings = [None if one is None else tuple(one) for one in readings]

    def read(self) -> tuple[Gpu, ...]:
        reading = self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]
        if reading is None:
            raise ProbeError(f"no {self.source} here")
        return reading
