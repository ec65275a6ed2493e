"""Collect the facts that `doctor` judges. Every query has a bound, and what cannot be read is None."""

import os
import platform
import resource
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path

from garrison.base.children import DIRECTORY, find_program
from garrison.base.errors import EngineError, GarrisonError
from garrison.base.presence import exists
from garrison.base.redaction import redacted
from garrison.base.settings import Settings
from garrison.engines import registry
from garrison.engines.executable import locate
from garrison.engines.runnable import problem_of
from garrison.launch.doctor.report import EngineFact, GpuFact, MachineFacts
from garrison.launch.port_server import engine_called
from garrison.preflight.check import PreflightRequest, check
from garrison.preflight.gpu.check import default_probes
from garrison.preflight.gpu.probe import ProbeError
from garrison.preflight.policy import RECLAIM

__all__ = ["machine_facts"]

_HUB = "https://huggingface.co"
_HUB_SECONDS = 5.0
_SMI_SECONDS = 10.0


def machine_facts(settings: Settings, environ: Mapping[str, str], *, offline: bool) -> MachineFacts:
    """Collect every fact once. `offline` skips the hub, and with it the comparison of clocks."""
    total, available = _memory()
    driver, cuda, problem = _driver()
    gpus = _gpus() if driver is not None else ()
    root = _existing(settings.models_root)
    disk = shutil.disk_usage(root)
    port, hint = _port(settings)
    hub_url = settings.hf_endpoint or _HUB
    hub, skew = (None, None) if offline else _hub(hub_url)
    return MachineFacts(
        system=_system(),
        machine=f"{platform.machine()}, {os.cpu_count()} CPUs",
        python=platform.python_version(),
        supported_system=platform.system() == "Linux",
        memory_total=total,
        memory_available=available,
        driver=driver,
        cuda=cuda,
        gpus=gpus,
        gpu_problem=problem,
        models_root=str(settings.models_root),
        disk_free=disk.free,
        disk_total=disk.total,
        models_root_writable=os.access(root, os.W_OK),
        shm_total=_shm(),
        hugepages=_hugepages(),
        endpoint=f"{settings.engine_host}:{settings.engine_port}",
        port=port,
        port_hint=hint,
        engines=tuple(_engine(name, settings, environ) for name in registry.names() if name != "sim"),
        hub_url=redacted(hub_url),
        hub_asked=not offline,
        hub=hub,
        clock_skew=skew,
        open_files=_soft_limit(resource.RLIMIT_NOFILE),
        processes=_soft_limit(resource.RLIMIT_NPROC),
        locked_memory=_soft_limit(resource.RLIMIT_MEMLOCK),
    )


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = platform.system()
    return f"{name}, kernel {platform.release()}"


def _memory() -> tuple[int | None, int | None]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None, None
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) > 1}
    return values.get("MemTotal"), values.get("MemAvailable")


def _driver() -> tuple[str | None, str | None, str | None]:
    """(driver version, CUDA version, problem); all None on a machine without an NVIDIA GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return _driver_by_smi(str(error))
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        return str(driver), f"{cuda // 1000}.{cuda % 1000 // 10}", None
    except pynvml.NVMLError as error:
        return None, None, str(error)
    finally:
        pynvml.nvmlShutdown()


def _driver_by_smi(nvml_error: str) -> tuple[str | None, str | None, str | None]:
    program = find_program("nvidia-smi", os.environ)
    has_card = exists(Path("/proc/driver/nvidia"))
    if program is None:
        return None, None, f"NVML: {nvml_error}" if has_card else None
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=_SMI_SECONDS, check=True, cwd=DIRECTORY)
    except (OSError, subprocess.SubprocessError) as error:
        return None, None, f"nvidia-smi: {error}"
    return answer.stdout.split("\n")[0].strip() or None, None, None


def _gpus() -> tuple[GpuFact, ...]:
    for probe in default_probes():
        try:
            found = probe.read()
        except ProbeError:
            continue
        return tuple(GpuFact(gpu.name, gpu.memory_total_mib, gpu.memory_free_mib, gpu.temperature_c) for gpu in found)
    return ()


def _shm() -> int | None:
    try:
        status = os.statvfs("/dev/shm")  # noqa: S108 - read for its size, not written to
    except OSError:
        return None
    return status.f_blocks * status.f_frsize


def _hugepages() -> str | None:
    try:
        modes = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
    except OSError:
        return None
    chosen = modes[modes.find("[") + 1 : modes.find("]")] if "[" in modes else modes.strip()
    try:
        reserved = int(Path("/proc/sys/vm/nr_hugepages").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return f"transparent: {chosen}"
    return f"transparent: {chosen}; {reserved} reserved"


def _port(settings: Settings) -> tuple[str | None, str | None]:
    request = replace(PreflightRequest.from_settings(settings), skip_gpu=True)
    try:
        report = check(request, replace(RECLAIM, dry_run=True), say=lambda _: None)
    except GarrisonError as error:
        return error.message, error.hint
    if report.held_by is None:
        return None, None
    pids = ", ".join(map(str, report.would_stop_roots))
    title = engine_called(report.held_by).title
    return (
        f"{settings.engine_host}:{settings.engine_port} is held by your {title}, pid {pids}",
        "`garrison serve --replace` stops it first; without --replace it asks, or refuses.",
    )


def _engine(name: str, settings: Settings, environ: Mapping[str, str]) -> EngineFact:
    engine = registry.engine(name)
    try:
        located = locate(engine, data_dir=settings.data_dir, environ=environ)
    except EngineError:
        return EngineFact(name, None, None)
    path, remedy = str(located.path), located.remedy(name)
    if (problem := problem_of(located.path)) is not None:
        return EngineFact(name, path, None, problem, remedy)
    try:
        return EngineFact(name, path, engine.version(located.path))
    except EngineError as error:
        return EngineFact(name, path, None, error.message, remedy)


def _hub(url: str) -> tuple[str | None, float | None]:
    """(why the hub does not answer, seconds that this clock is ahead of the hub's)."""
    import httpx2

    try:
        response = httpx2.head(url, timeout=_HUB_SECONDS, follow_redirects=False)
    except httpx2.HTTPError as error:
        return redacted(f"{type(error).__name__}: {error}"), None
    except httpx2.InvalidURL as error:
        return redacted(f"not an address: {error}"), None
    skew = None
    if date := response.headers.get("date"):
        try:
            skew = time.time() - parsedate_to_datetime(date).timestamp()
        except ValueError:
            skew = None
    return (f"HTTP {response.status_code}" if response.status_code >= 500 else None), skew


def _soft_limit(which: int) -> int:
    soft, _ = resource.getrlimit(which)
    return 2**62 if soft == resource.RLIM_INFINITY else soft


def _existing(path: Path) -> Path:
    while not exists(path) and path != path.parent:
        path = path.parent
    return path
