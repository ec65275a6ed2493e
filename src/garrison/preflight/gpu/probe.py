"""The seam to the GPU driver, and the order of the ways to it: NVML, then `nvidia-smi`, then none."""

from collections.abc import Iterable
from typing import Protocol

from garrison.base.errors import InvalidError
from garrison.preflight.gpu.gpus import Gpu

__all__ = ["GpuProbe", "ProbeError", "read_gpus"]


class ProbeError(Exception):
    """This way to the driver does not work; the next one is tried."""


class GpuProbe(Protocol):
    source: str
    """`nvml` or `nvidia-smi`."""

    def read(self) -> tuple[Gpu, ...]:
        """Every GPU of the machine. Raises ProbeError."""


def read_gpus(probes: Iterable[GpuProbe]) -> tuple[str, tuple[Gpu, ...], tuple[str, ...]]:
    """The first probe that works: (source, GPUs, why the earlier probes failed); `unavailable` if none does.

    Raises:
        InvalidError: a driver without a GPU: something is broken, not merely absent.
    """
    reasons: list[str] = []
    for probe in probes:
        try:
            gpus = probe.read()
        except ProbeError as error:
            reasons.append(f"{probe.source}: {error}")
            continue
        if not gpus:
            raise InvalidError(
                "the NVIDIA driver is loaded and reports no GPU",
                hint="Look at `nvidia-smi` and `dmesg`, and in a container at the GPUs passed in; or set "
                "VLLM_SKIP_GPU_CHECK=1.",
            )
        return probe.source, gpus, tuple(reasons)
    return "unavailable", (), tuple(reasons)
