"""GPUs through the CSV of `nvidia-smi`."""

import os
from collections.abc import Callable, Sequence

from garrison.base.children import DIRECTORY, find_program
from garrison.preflight.gpu.gpus import Gpu, GpuProcess, throttle_words
from garrison.preflight.gpu.probe import ProbeError

__all__ = ["NvidiaSmiProbe", "parse_smi_gpus", "parse_smi_processes"]

_SMI_SECONDS = 20
_GPU_FIELDS = (
    "index,uuid,name,memory.total,memory.free,memory.used,temperature.gpu,utilization.gpu,pstate,"
    "clocks_{}_reasons.active"
)
_APP_FIELDS = "gpu_uuid,pid,used_memory"


class NvidiaSmiProbe:
    """Reads the CSV of `nvidia-smi`. `run` calls it with arguments and returns (exit status, output)."""

    source = "nvidia-smi"

    def __init__(self, run: Callable[[Sequence[str]], tuple[int, str]] | None = None) -> None:
        self._run = run or _run_nvidia_smi

    def read(self) -> tuple[Gpu, ...]:
        # Drivers before 535 know the last field only under its old name.
        for word in ("event", "throttle"):
            status, output = self._run((f"--query-gpu={_GPU_FIELDS.format(word)}", "--format=csv,noheader,nounits"))
            if status == 0 or "No devices were found" in output:
                break
        else:
            raise ProbeError(f"exit {status}: {output.strip().partition(os.linesep)[0] or 'no output'}")
        if "No devices were found" in output:
            return ()
        apps_status, apps = self._run(
            ("--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv,noheader,nounits")
        )
        processes = parse_smi_processes(apps) if apps_status == 0 else {}
        return parse_smi_gpus(output, processes)


def _run_nvidia_smi(arguments: Sequence[str]) -> tuple[int, str]:
    import subprocess  # needed only where NVML does not work

    program = find_program("nvidia-smi", os.environ)
    if program is None:
        raise ProbeError("not installed")
    try:
        done = subprocess.run(
            [program, *arguments],
            cwd=DIRECTORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SMI_SECONDS,
        )
    except FileNotFoundError:
        raise ProbeError("not installed") from None
    except subprocess.TimeoutExpired:
        raise ProbeError(f"no answer within {_SMI_SECONDS} s") from None
    except OSError as error:
        raise ProbeError(str(error)) from None
    return done.returncode, done.stdout


def parse_smi_gpus(text: str, processes: dict[str, tuple[GpuProcess, ...]] | None = None) -> tuple[Gpu, ...]:
    """Parse the CSV of `nvidia-smi --query-gpu`. Raises ProbeError for other output."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 10 or not cells[0].isdigit():
            raise ProbeError(f"unexpected output: {line[:80]}")
        reasons = int(cells[9], 16) if cells[9].startswith("0x") else None
        total, free, used, temperature, utilization = (_number(cell) for cell in cells[3:8])
        found.append(
            Gpu(
                index=int(cells[0]),
                uuid=cells[1],
                name=cells[2],
                memory_total_mib=total,
                memory_free_mib=free,
                memory_used_mib=used,
                temperature_c=temperature,
                utilization_pct=utilization,
                pstate=cells[8] if cells[8].startswith("P") else None,
                clocks_event_reasons_active=None if reasons is None else f"0x{reasons:016x}",
                throttle_reasons=throttle_words(reasons),
                processes=(processes or {}).get(cells[1], ()),
            )
        )
    return tuple(found)


def parse_smi_processes(text: str) -> dict[str, tuple[GpuProcess, ...]]:
    """Parse the CSV of `nvidia-smi --query-compute-apps`: processes by GPU UUID. Other lines are skipped."""
    found: dict[str, tuple[GpuProcess, ...]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 3 and cells[1].isdigit():
            found[cells[0]] = (*found.get(cells[0], ()), GpuProcess(int(cells[1]), _number(cells[2])))
    return found


def _number(cell: str) -> int | None:
    try:
        return int(float(cell))
    except ValueError:  # [N/A], [Not Supported], [Insufficient Permissions]
        return None
