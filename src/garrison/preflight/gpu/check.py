"""The GPU half of the preflight: memory that comes free after a stop, and the thresholds."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from garrison.base.errors import GpuThresholdError, InvalidError
from garrison.preflight.gpu.gpus import Gpu, Problem, held_mib, hides_all, judge, select
from garrison.preflight.gpu.nvidia_smi import NvidiaSmiProbe
from garrison.preflight.gpu.nvml import NvmlProbe
from garrison.preflight.gpu.probe import GpuProbe, read_gpus
from garrison.preflight.machine import Machine
from garrison.preflight.report import GpuCheckSource, PreflightRequest, gpus_json

__all__ = ["GpuFinding", "MemoryHeld", "check_gpus", "default_probes", "foresee", "memory_held", "wait_for_release"]

_RELEASE_SECONDS = 30.0
_RELEASE_POLL = 0.25
# The driver may keep a little of a context's memory; nine tenths count as all of it.
_RELEASED_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class MemoryHeld:
    """GPU memory of some processes: MiB by GPU UUID, and the memory in use on those GPUs at that time."""

    pids: frozenset[int]
    held: dict[str, int]
    used: dict[str, int]


@dataclass(frozen=True, slots=True)
class GpuFinding:
    source: GpuCheckSource = "skipped"
    gpus: tuple[Gpu, ...] = ()
    problems: tuple[Problem, ...] = ()
    would_fail: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def default_probes() -> tuple[GpuProbe, ...]:
    """The ways to the driver, in the order in which they are tried: NVML, then `nvidia-smi`."""
    return (NvmlProbe(), NvidiaSmiProbe())


def memory_held(pids: Collection[int], probes: Iterable[GpuProbe]) -> MemoryHeld | None:
    """The GPU memory of `pids`; None when they hold none, or it cannot be read."""
    try:
        _, gpus, _ = read_gpus(probes)
    except InvalidError:  # the threshold check reports it
        return None
    held = held_mib(gpus, pids)
    if not held:
        return None
    return MemoryHeld(frozenset(pids), held, {gpu.uuid: gpu.memory_used_mib or 0 for gpu in gpus if gpu.uuid in held})


def wait_for_release(before: MemoryHeld, probes: Sequence[GpuProbe], machine: Machine) -> tuple[int, bool]:
    """Poll for half a minute at most until the memory is free: (MiB that came free, whether that is all of it)."""
    deadline = machine.clock.monotonic() + _RELEASE_SECONDS
    while True:
        released, complete = _released(before, probes)
        if complete or machine.clock.monotonic() >= deadline:
            return released, complete
        machine.clock.sleep(_RELEASE_POLL)


def _released(before: MemoryHeld, probes: Sequence[GpuProbe]) -> tuple[int, bool]:
    try:
        _, gpus, _ = read_gpus(probes)
    except InvalidError:
        return 0, False
    now = {gpu.uuid: gpu for gpu in gpus}
    released, complete = 0, True
    for uuid, held in before.held.items():
        gpu = now.get(uuid)
        if gpu is None:
            return released, False
        back = max(0, before.used[uuid] - (gpu.memory_used_mib or 0))
        gone = not held_mib((gpu,), before.pids)
        released += back
        # Another process may allocate memory meanwhile. That cannot be told from memory still held by the ended
        # processes, except that the driver no longer lists them.
        complete = complete and gone and back >= _RELEASED_SHARE * held
    return released, complete


def check_gpus(request: PreflightRequest, probes: Iterable[GpuProbe], *, dry_run: bool = False) -> GpuFinding:
    """Read the GPUs and judge them. A dry run lists fatal conditions in `would_fail` instead of raising them.

    Raises:
        GpuThresholdError: a condition in `fail_on` is met. Details: `gpus`, `gpu_check_source`.
        InvalidError: the driver reports no GPU, or `gpu_devices` names one that does not exist.
    """
    try:
        return _judged(request, probes, dry_run)
    except InvalidError as error:
        if not dry_run:
            raise
        return GpuFinding("unavailable", would_fail=(error.message,))


def foresee(request: PreflightRequest, pids: Collection[int], probes: Iterable[GpuProbe]) -> None:
    """Predict the check for the time after `pids` have ended: their memory counts as free, and utilization is ignored,
    since it is theirs.

    Raises:
        GpuThresholdError, InvalidError: as `check_gpus`.
    """
    if hides_all(request.gpu_devices):
        return
    source, gpus, _ = read_gpus(probes)
    if source == "unavailable":
        return
    held = held_mib(gpus, pids)
    later = tuple(_without(gpu, held.get(gpu.uuid, 0)) for gpu in select(gpus, request.gpu_devices))
    problems = judge(later, request.thresholds)
    if fatal := _fatal(problems):
        raise _beyond_limits(fatal, gpus_json(later, problems), source)


def _without(gpu: Gpu, held: int) -> Gpu:
    free = gpu.memory_free_mib
    return replace(gpu, memory_free_mib=None if free is None else free + held, utilization_pct=None)


def _judged(request: PreflightRequest, probes: Iterable[GpuProbe], dry_run: bool) -> GpuFinding:
    if hides_all(request.gpu_devices):
        return GpuFinding(warnings=("no GPU is selected: none was checked",))
    source, gpus, reasons = read_gpus(probes)
    if source == "unavailable":
        return GpuFinding("unavailable", warnings=("the GPUs were not checked: " + "; ".join(reasons),))
    chosen = select(gpus, request.gpu_devices)
    problems = judge(chosen, request.thresholds)
    fatal = _fatal(problems)
    if fatal and not dry_run:
        raise _beyond_limits(fatal, gpus_json(chosen, problems), source)
    warnings = [f"GPU {one.gpu}: {one.condition}: {one.message}" for one in problems if not one.fatal]
    return GpuFinding("nvml" if source == "nvml" else "nvidia-smi", chosen, problems, fatal, tuple(warnings))


def _fatal(problems: Iterable[Problem]) -> tuple[str, ...]:
    return tuple(f"GPU {one.gpu}: {one.condition}: {one.message}" for one in problems if one.fatal)


def _beyond_limits(fatal: Sequence[str], gpus: list[dict[str, Any]], source: str) -> GpuThresholdError:
    return GpuThresholdError(
        "; ".join(fatal),
        hint="Free or cool the GPU, choose others with VLLM_GPU_DEVICES, or change the limit or VLLM_GPU_FAIL_ON.",
        details={"gpus": gpus, "gpu_check_source": source},
    )
