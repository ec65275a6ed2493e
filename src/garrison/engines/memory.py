"""How an engine's GPU memory comes back after a stop or a sleep: what to watch, what counts as freed, and the verdict.

Freed is never guessed. A driver returns memory some time after the process has gone, a sleep may leave the weights
where they were, and what cannot be measured is not known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

__all__ = [
    "GIB",
    "Gpu",
    "MemoryUse",
    "Release",
    "Sample",
    "Verdict",
    "judge_release",
    "on_gpu_unless_cpu",
]

GIB = 1024**3
_NO_DEVICE = ("-1", "none", "void", "nodevfiles")
_SLACK_BYTES = 64 * 1024**2
"""How far a driver's totals wander without a cause."""


@dataclass(frozen=True, slots=True)
class Release:
    """What counts as freed.

    Attributes:
        keeps_bytes: what the engine's processes may still hold on each GPU.
        settle_seconds: how long it must have been so.
        seconds: after which the memory counts as stuck.
    """

    keeps_bytes: int = 0
    settle_seconds: float = 0.5
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Where an engine keeps its weights and its cache.

    Attributes:
        on: `gpu`, or `host`: memory of the machine, which is free as soon as the process is gone.
        visible: entries of `CUDA_VISIBLE_DEVICES`, indices or UUIDs; None: every GPU of the machine. Watching more than
            the engine uses does no harm: of those it held nothing.
        release: what counts as freed after a stop.
    """

    on: Literal["gpu", "host"]
    visible: tuple[str, ...] | None = None
    release: Release = field(default_factory=Release)


def on_gpu_unless_cpu(device: str | None, environ: Mapping[str, str]) -> MemoryUse:
    """For an engine that uses the GPUs it sees, unless it was installed for CPUs or no GPU is visible."""
    if device == "cpu":
        return MemoryUse("host")
    given = environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return MemoryUse("gpu")
    entries = tuple(entry.strip() for entry in given.split(",") if entry.strip())
    # CUDA reads entries up to the first that names no device.
    valid = tuple(takewhile(lambda entry: entry.lower() not in _NO_DEVICE, entries))
    return MemoryUse("gpu", valid) if valid else MemoryUse("host")


@dataclass(frozen=True, slots=True)
class Gpu:
    """Memory of one GPU.

    Attributes:
        used_bytes: by anybody.
        by_pid: by each process, as this process numbers them. None where the driver does not tell.
    """

    uuid: str
    used_bytes: int
    by_pid: Mapping[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """All GPUs that are watched, at one time (monotonic seconds). A GPU that could not be read is left out."""

    at: float
    gpus: tuple[Gpu, ...]

    def gpu(self, uuid: str) -> Gpu | None:
        return next((gpu for gpu in self.gpus if gpu.uuid == uuid), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Attributes:
    state: `freed`; `waiting`, ask again; `stuck`, the time is over; `unknown`, what the engine held was not measured.
    remaining: bytes that are not back, by the UUID of the GPU.
    reason: a sentence for people; empty when freed.
    """

    state: Literal["freed", "waiting", "stuck", "unknown"]
    remaining: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""


def judge_release(
    release: Release,
    pids: frozenset[int],
    before: Sample,
    after: Sequence[Sample],
    *,
    idle: Sample | None = None,
) -> Verdict:
    """Whether the memory of the engine with these processes is back. Pure.

    Args:
        pids: all processes of the engine, as of `before`.
        before: just before the stop or sleep.
        after: samples since, oldest first.
        idle: before the engine was started. Needed where the driver does not tell what each process holds, as in a
            container whose numbers of processes are its own.
    """
    # A GPU that lists the processes shows that the driver numbers them as this process does; then a GPU that does not
    # list them holds none of their memory.
    by_pid = any(_of(gpu, pids) for gpu in before.gpus)
    held = {gpu.uuid: _held(gpu, pids, by_pid, idle.gpu(gpu.uuid) if idle else None) for gpu in before.gpus}
    if unmeasured := sorted(uuid for uuid, amount in held.items() if amount is None):
        return Verdict("unknown", reason=f"what the engine holds on {', '.join(unmeasured)} cannot be measured")
    since: float | None = None
    remaining: dict[str, int] = {}
    unread: list[str] = []
    for sample in after:
        unread = [gpu.uuid for gpu in before.gpus if sample.gpu(gpu.uuid) is None]
        remaining = {
            uuid: amount
            for uuid, amount in _outstanding(before, sample, held, pids, by_pid).items()
            if amount > release.keeps_bytes + _SLACK_BYTES
        }
        if remaining or unread:
            since = None
        elif since is None:
            since = sample.at
    last = after[-1].at if after else before.at
    if since is not None and last - since >= release.settle_seconds:
        return Verdict("freed")
    reason = _reason(remaining, unread)
    return Verdict("stuck" if last - before.at >= release.seconds else "waiting", remaining, reason)


def _outstanding(
    before: Sample, sample: Sample, held: Mapping[str, int | None], pids: frozenset[int], by_pid: bool
) -> dict[str, int]:
    """Bytes that are not back, by the UUID of each GPU that could be read and on which the engine held something."""
    found = {}
    for gpu in before.gpus:
        now, amount = sample.gpu(gpu.uuid), held[gpu.uuid]
        if now is not None and amount:
            found[gpu.uuid] = _left(gpu, now, amount, pids, by_pid)
    return found


def _held(gpu: Gpu, pids: frozenset[int], by_pid: bool, idle: Gpu | None) -> int | None:
    """Bytes that the engine holds; None when that is not known."""
    if by_pid and gpu.by_pid is not None:
        return _of(gpu, pids)
    return None if idle is None else max(0, gpu.used_bytes - idle.used_bytes)


def _left(before: Gpu, now: Gpu, held: int, pids: frozenset[int], by_pid: bool) -> int:
    """Bytes of `held` that are not back.

    By processes where the driver tells, so that another one may take memory meanwhile. What belongs to no process
    counts too: the driver no longer lists a killed process while it still returns its memory.
    """
    if by_pid and before.by_pid is not None and now.by_pid is not None:
        orphaned = _unexplained(now) - _unexplained(before)
        return _of(now, pids) + max(0, orphaned)
    return max(0, now.used_bytes - (before.used_bytes - held))


def _of(gpu: Gpu, pids: frozenset[int]) -> int:
    return sum(amount for pid, amount in (gpu.by_pid or {}).items() if pid in pids)


def _unexplained(gpu: Gpu) -> int:
    return gpu.used_bytes - sum((gpu.by_pid or {}).values())


def _reason(remaining: Mapping[str, int], unread: Sequence[str]) -> str:
    parts = [f"{amount / GIB:.1f} GiB of {uuid} are not back" for uuid, amount in sorted(remaining.items())]
    parts += [f"{uuid} could not be read" for uuid in unread]
    return "; ".join(parts) or "the memory has not been free for long enough"
