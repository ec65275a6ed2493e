"""AMD GPUs through `amd-smi --json`. Written from recorded output; untried on the hardware."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from garrison.base.children import child_environment, find_program
from garrison.base.programs import program_output
from garrison.preflight.gpu.gpus import Gpu, GpuProcess
from garrison.preflight.gpu.probe import ProbeError

__all__ = ["AmdSmiProbe", "parse_amd_gpus"]

_SECONDS = 10.0
_MOST_BYTES = 4 * 1024 * 1024
_MOST_GPUS = 256
_MOST_PROCESSES = 4096
_MIB = 1024 * 1024
_UNITS = {"B": 1, "KB": 1024, "KIB": 1024, "MB": _MIB, "MIB": _MIB, "GB": 1024**3, "GIB": 1024**3}
"""What amd-smi calls MB are MiB: an MI300X with 192 GiB has 196592 of them."""


class AmdSmiProbe:
    """Reads GPUs and their processes. Untried on the hardware.

    A GPU is named as `ROCR_VISIBLE_DEVICES` names it: `GPU-` and the serial number of its chip.

    Args:
        run: calls the program with arguments and returns its output; raises ProbeError.
    """

    source = "amd-smi"

    def __init__(self, run: Callable[[Sequence[str]], str] | None = None) -> None:
        self._run = run or _run_amd_smi

    def read(self) -> tuple[Gpu, ...]:
        metric = _json(self._run(("metric", "--mem-usage", "--json")))
        static = _json(self._run(("static", "--asic", "--json")))
        try:
            processes = _json(self._run(("process", "--general", "--json")))
        except ProbeError:  # what other users run may be hidden; the memory of the GPUs is not
            processes = []
        return parse_amd_gpus(metric, static, processes)


def parse_amd_gpus(metric: Any, static: Any, processes: Any) -> tuple[Gpu, ...]:
    """Read the answers of `amd-smi metric`, `static` and `process`. Pure.

    Raises:
        ProbeError: they are something else.
    """
    names = {index: _mapping(one.get("asic")) for index, one in _rows(static)}
    running: dict[int, tuple[GpuProcess, ...]] = {index: tuple(_processes(one)) for index, one in _rows(processes)}
    found = []
    for index, row in _rows(metric):
        usage, asic = _mapping(row.get("mem_usage")), names.get(index, {})
        serial = str(asic.get("asic_serial", "")).lower().removeprefix("0x")
        if not serial or serial == "n/a":
            raise ProbeError(f"amd-smi does not tell the serial number of GPU {index}")
        total, used, free = (_bytes(usage.get(f"{kind}_vram"), "MB") for kind in ("total", "used", "free"))
        if free is None and total is not None and used is not None:
            free = max(0, total - used)
        found.append(
            Gpu(
                index=index,
                uuid=f"GPU-{serial}",
                name=str(asic.get("market_name") or "AMD GPU"),
                memory_total_mib=_mib(total),
                memory_free_mib=_mib(free),
                memory_used_mib=_mib(used),
                processes=running.get(index, ()),
            )
        )
    return tuple(found)


def _rows(answer: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The GPUs of an answer: a list, which newer versions put into an object."""
    rows = answer.get("gpu_data") if isinstance(answer, dict) else answer
    if not isinstance(rows, list) or len(rows) > _MOST_GPUS:
        raise ProbeError("unexpected output of amd-smi")
    for row in rows:
        if isinstance(row, dict) and type(row.get("gpu")) is int:
            yield row["gpu"], row


def _processes(row: Mapping[str, Any]) -> Iterator[GpuProcess]:
    listed = row.get("process_list")
    for one in listed[:_MOST_PROCESSES] if isinstance(listed, list) else ():
        info = _mapping(_mapping(one).get("process_info"))
        pid = info.get("pid")
        if type(pid) is int:  # without processes, a sentence stands there
            memory = _mapping(info.get("memory_usage")) or info
            yield GpuProcess(pid, _mib(_bytes(memory.get("vram_mem", info.get("mem_usage")), "B")))


def _bytes(value: Any, unit: str) -> int | None:
    """A number, or `{"value": 12, "unit": "MB"}`; None for `N/A`."""
    if isinstance(value, dict):
        unit = str(value.get("unit") or unit)
        value = value.get("value")
    try:
        amount = float(value)
        return int(amount * _UNITS[unit.upper()]) if amount >= 0 else None
    except (TypeError, ValueError, KeyError, OverflowError):
        return None


def _mib(count: int | None) -> int | None:
    return None if count is None else count // _MIB


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(text: str) -> Any:
    """The document in an output, in front of which warnings may stand."""
    starts = [place for mark in "[{" if (place := text.find(mark)) >= 0]
    try:
        return json.loads(text[min(starts) :]) if starts else None
    except (ValueError, RecursionError):
        raise ProbeError(f"unexpected output of amd-smi: {text.strip()[:80]}") from None


def _run_amd_smi(arguments: Sequence[str]) -> str:
    program = find_program("amd-smi", os.environ) or find_program("/opt/rocm/bin/amd-smi", os.environ)
    if program is None:
        raise ProbeError("not installed")
    try:
        status, output = program_output(
            (program, *arguments), seconds=_SECONDS, most_bytes=_MOST_BYTES, env=child_environment(os.environ)
        )
    except (OSError, TimeoutError, ValueError) as error:
        raise ProbeError(str(error)) from None
    if status != 0:
        raise ProbeError(f"exit {status}: {output.strip()[:80] or 'no output'}")
    return output
