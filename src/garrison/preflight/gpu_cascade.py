"""The ways to the GPU driver in the order they are tried: the seed's cascade."""

from garrison.preflight.gpu_probe import GpuProbe
from garrison.preflight.nvidia_smi import NvidiaSmiProbe
from garrison.preflight.nvml import NvmlProbe

__all__ = ["default_probes"]


def default_probes() -> tuple[GpuProbe, ...]:
    """NVML, then `nvidia-smi`. Imported only when GPUs are looked at: a preflight without them is to stay cheap."""
    return (NvmlProbe(), NvidiaSmiProbe())
