"""Can this machine serve? Facts in, verdicts out; `machine_facts` collects the facts.

Every warning and failure names its remedy.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from garrison.base.values import size_text

__all__ = ["Check", "EngineFact", "GpuFact", "MachineFacts", "checks"]

Status = Literal["ok", "skipped", "warn", "fail"]
"""`skipped`: not checked, because it could not be read, was not asked for, or does not exist here."""

_GIB = 1024**3
_LEAST_FILES = 4096
_LEAST_PROCESSES = 4096
_CLOCK_SKEW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    status: Status
    value: str
    remedy: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class GpuFact:
    name: str
    memory_total_mib: int | None
    memory_free_mib: int | None
    temperature_c: int | None


@dataclass(frozen=True, slots=True)
class EngineFact:
    """An engine's program. If it was found and cannot be run, `version` is None; `problem` and `remedy` say why, and
    what to do."""

    name: str
    path: str | None
    version: str | None
    problem: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineFacts:
    """Facts about a machine. None means that one could not be read, or was not asked for.

    Attributes:
        port: the result of a dry preflight: None if the port is free, otherwise the reason.
        hub: None if it answered, otherwise why not; `hub_asked` tells whether it was asked.
        clock_skew: seconds that this clock is ahead of the hub's.
        gpu_problem: why the driver could not be read.
    """

    system: str
    machine: str
    python: str
    supported_system: bool
    memory_total: int | None
    memory_available: int | None
    driver: str | None
    cuda: str | None
    gpus: Sequence[GpuFact] = ()
    gpu_problem: str | None = None
    models_root: str
    disk_free: int
    disk_total: int
    models_root_writable: bool
    shm_total: int | None
    hugepages: str | None
    endpoint: str
    port: str | None
    port_hint: str | None = None
    engines: Sequence[EngineFact] = ()
    hub_url: str
    hub_asked: bool
    hub: str | None
    clock_skew: float | None
    open_files: int | None
    processes: int | None
    locked_memory: int | None


def checks(facts: MachineFacts) -> tuple[Check, ...]:
    """The checks, in the order in which a start would fail on them."""
    return (
        _system(facts),
        Check("python", "ok", facts.python),
        _memory(facts),
        _driver(facts),
        *_gpus(facts),
        _disk(facts),
        _shm(facts),
        _known("huge pages", facts.hugepages),
        _port(facts),
        *_engines(facts),
        _hub(facts),
        _clock(facts),
        *_limits(facts),
    )


def _system(facts: MachineFacts) -> Check:
    value = f"{facts.system}, {facts.machine}"
    if facts.supported_system:
        return Check("system", "ok", value)
    return Check("system", "warn", value, "Garrison is tested on Linux; preflight is weaker elsewhere.")


def _known(name: str, value: str | None) -> Check:
    return Check(name, "skipped", "not known") if value is None else Check(name, "ok", value)


def _memory(facts: MachineFacts) -> Check:
    if facts.memory_total is None or facts.memory_available is None:
        return _known("memory", None)
    value = f"{size_text(facts.memory_available)} available of {size_text(facts.memory_total)}"
    if facts.memory_available < 2 * _GIB:
        return Check(
            "memory", "warn", value, "Stop what is not needed: an engine uses 2 GiB before it loads any weights."
        )
    return Check("memory", "ok", value)


def _driver(facts: MachineFacts) -> Check:
    if facts.driver is not None:
        return Check("NVIDIA driver", "ok", facts.driver + (f", CUDA {facts.cuda}" if facts.cuda else ""))
    if facts.gpu_problem is not None:
        remedy = "Load or reinstall the NVIDIA driver; `nvidia-smi` must work."
        return Check("NVIDIA driver", "fail", facts.gpu_problem, remedy)
    return Check("NVIDIA driver", "ok", "none; engines run on the CPU")


def _gpus(facts: MachineFacts) -> tuple[Check, ...]:
    if facts.driver is not None and not facts.gpus:
        return (Check("GPU", "fail", "the driver sees none", "Look for NVRM in `dmesg`; reseat or reset the card."),)
    return tuple(_gpu(index, gpu) for index, gpu in enumerate(facts.gpus))


def _gpu(index: int, gpu: GpuFact) -> Check:
    total, free = gpu.memory_total_mib, gpu.memory_free_mib
    value = gpu.name
    if total is not None and free is not None:
        value += f", {free} MiB free of {total}"
    if gpu.temperature_c is not None:
        value += f", {gpu.temperature_c} °C"
    if total and free is not None and free < total * 0.5:
        return Check(f"GPU {index}", "warn", value, "Another process uses it: `nvidia-smi` shows which.")
    return Check(f"GPU {index}", "ok", value)


def _disk(facts: MachineFacts) -> Check:
    value = f"{size_text(facts.disk_free)} free of {size_text(facts.disk_total)} at {facts.models_root}"
    if not facts.models_root_writable:
        return Check(
            "disk", "fail", f"{facts.models_root} cannot be written", "Set GARRISON_MODELS_DIR to another directory."
        )
    if facts.disk_free < 2 * _GIB:
        return Check("disk", "fail", value, "Free some space, or set GARRISON_MODELS_DIR to another disk.")
    if facts.disk_free < 20 * _GIB:
        return Check("disk", "warn", value, "A 7B model needs 15 GiB; `garrison models list` shows the models on disk.")
    return Check("disk", "ok", value)


def _shm(facts: MachineFacts) -> Check:
    if facts.shm_total is None:
        return Check("shared memory", "skipped", "no /dev/shm")
    value = f"{size_text(facts.shm_total)} in /dev/shm"
    if facts.shm_total < _GIB:
        remedy = "Several GPUs need 1 GiB: pass --shm-size 1g to a container, or remount /dev/shm with a larger size."
        return Check("shared memory", "warn", value, remedy)
    return Check("shared memory", "ok", value)


def _port(facts: MachineFacts) -> Check:
    if facts.port is None:
        return Check("port", "ok", f"{facts.endpoint} is free")
    return Check("port", "warn", facts.port, facts.port_hint or "Stop what holds it, or choose another --port.")


def _engines(facts: MachineFacts) -> tuple[Check, ...]:
    found = [engine for engine in facts.engines if engine.path is not None]
    if not found:
        value = "none found; only the simulator works (`garrison serve --engine sim`)"
        return (
            Check("engines", "fail", value, "garrison engine install vllm; without a GPU also llama_cpp or mlx_lm"),
        )
    return tuple(_engine(engine) for engine in found)


def _engine(engine: EngineFact) -> Check:
    if engine.version is None:
        remedy = engine.remedy or f"garrison engine install {engine.name}"
        return Check(engine.name, "fail", f"{engine.path}: {engine.problem}", remedy)
    return Check(engine.name, "ok", f"{engine.version} at {engine.path}")


def _hub(facts: MachineFacts) -> Check:
    if not facts.hub_asked:
        return Check("hub", "skipped", "not asked (offline)")
    if facts.hub is None:
        return Check("hub", "ok", f"{facts.hub_url} answers")
    remedy = "Air-gapped? Then this is expected: use `garrison models import`. Otherwise check network and HF_ENDPOINT."
    return Check("hub", "warn", f"{facts.hub_url}: {facts.hub}", remedy)


def _clock(facts: MachineFacts) -> Check:
    if facts.clock_skew is None:
        return Check("clock", "skipped", "not checked: it is compared with the hub's clock")
    value = f"{abs(facts.clock_skew):.0f} s {'ahead of' if facts.clock_skew > 0 else 'behind'} the hub's"
    if abs(facts.clock_skew) > _CLOCK_SKEW_SECONDS:
        return Check("clock", "fail", value, "Set the clock (chrony, systemd-timesyncd): TLS and signatures fail.")
    return Check("clock", "ok", value)


def _limits(facts: MachineFacts) -> tuple[Check, ...]:
    found = []
    if facts.open_files is not None:
        few = facts.open_files < _LEAST_FILES
        remedy = "ulimit -n 65536, or LimitNOFILE= in the unit: every connection needs a descriptor." if few else None
        found.append(Check("open files", "warn" if few else "ok", _limit(facts.open_files), remedy))
    if facts.processes is not None:
        few = facts.processes < _LEAST_PROCESSES
        remedy = "ulimit -u 65536: engines start many threads." if few else None
        found.append(Check("processes", "warn" if few else "ok", _limit(facts.processes), remedy))
    if facts.locked_memory is not None:
        found.append(Check("locked memory", "ok", _limit(facts.locked_memory, as_bytes=True)))
    return tuple(found)


def _limit(value: int, *, as_bytes: bool = False) -> str:
    if value >= 2**62:
        return "unlimited"
    return size_text(value) if as_bytes else str(value)
