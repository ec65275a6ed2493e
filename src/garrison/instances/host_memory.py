"""System memory: of this machine, or of the cgroup that this process is confined to.

Apple's GPUs have no memory of their own: what an engine takes on one is system memory, so there is one device.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from garrison.base.procfs import has_proc
from garrison.base.programs import program_output
from garrison.instances.memory_reader import MemoryReader, Reading
from garrison.instances.room.values import HOST, Device
from garrison.preflight.gpu.probe import ProbeError

__all__ = ["AppleMemory", "LinuxMemory", "PsutilMemory", "host_readers", "parse_vm_stat", "read_host"]

_PROGRAM_SECONDS = 5.0
_PROGRAM_BYTES = 64 * 1024
_AVAILABLE_PAGES = ("Pages free", "Pages inactive", "Pages speculative", "Pages purgeable")
"""What macOS gives away without swapping, as Activity Monitor counts it."""


def host_readers() -> tuple[MemoryReader, ...]:
    """The ways to read system memory here, in the order in which they are tried."""
    if has_proc():
        return (LinuxMemory(), PsutilMemory())
    return (AppleMemory(), PsutilMemory()) if sys.platform == "darwin" else (PsutilMemory(),)


class LinuxMemory:
    """Reads `/proc/meminfo` and the limits of cgroups. `root` is another root directory, for tests."""

    source = "meminfo"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def read(self) -> Reading:
        """As `MemoryReader.read`."""
        found = read_host(self._root)
        if found is None:
            raise ProbeError("/proc/meminfo does not tell")
        return Reading((found,))


class PsutilMemory:
    """Reads through psutil: any system, without the limits of cgroups."""

    source = "psutil"

    def read(self) -> Reading:
        """As `MemoryReader.read`."""
        try:
            found = psutil.virtual_memory()
        except (psutil.Error, OSError, RuntimeError) as error:
            raise ProbeError(str(error)) from None
        return Reading((Device(HOST, found.total, found.available),))


class AppleMemory:
    """Reads the unified memory of Apple's chips through `sysctl` and `vm_stat`. Untried on the hardware.

    The GPU may take no more than `iogpu.wired_limit_mb` where that is set; else the system chooses a limit of about
    three quarters of the memory, which is not readable and not applied here.

    Args:
        run: calls a program with arguments and returns its output; raises ProbeError.
    """

    source = "vm_stat"

    def __init__(self, run: Callable[[Sequence[str]], str] | None = None) -> None:
        self._run = run or _run_program

    def read(self) -> Reading:
        """As `MemoryReader.read`."""
        try:
            total = int(self._run(("/usr/sbin/sysctl", "-n", "hw.memsize")))
        except ValueError:
            raise ProbeError("sysctl does not tell hw.memsize") from None
        free = parse_vm_stat(self._run(("/usr/bin/vm_stat",)))
        try:
            limit = int(self._run(("/usr/sbin/sysctl", "-n", "iogpu.wired_limit_mb"))) * 1024 * 1024
        except (ProbeError, ValueError):
            limit = 0
        most = min(total, limit) if limit > 0 else total
        return Reading((Device(HOST, most, min(free, most)),))


def parse_vm_stat(text: str) -> int:
    """Bytes that can be given away, by the output of `vm_stat`. Pure.

    Raises:
        ProbeError: it is something else.
    """
    size = re.search(r"page size of (\d{1,9}) bytes", text)
    pages = dict(re.findall(r"^([A-Z][a-z ]+):\s+(\d{1,15})\.?$", text, re.MULTILINE))
    if size is None or "Pages free" not in pages:
        raise ProbeError(f"unexpected output of vm_stat: {text.strip()[:80]}")
    return int(size[1]) * sum(int(pages.get(name, 0)) for name in _AVAILABLE_PAGES)


def _run_program(argv: Sequence[str]) -> str:
    try:
        status, output = program_output(
            argv, seconds=_PROGRAM_SECONDS, most_bytes=_PROGRAM_BYTES, env={"LC_ALL": "C", "PATH": os.defpath}
        )
    except (OSError, TimeoutError, ValueError) as error:
        raise ProbeError(f"{argv[0]}: {error}") from None
    if status != 0:
        raise ProbeError(f"{argv[0]}: exit {status}")
    return output


def read_host(root: Path = Path("/")) -> Device | None:
    """Return total and available system memory in bytes; None where the system does not tell.

    Available is what the kernel could hand out without swapping, and no more than every cgroup above this process
    leaves. File pages of a cgroup that can be dropped count as available, as they do for the kernel.

    Args:
        root: another root directory, for tests.
    """
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if rest}
    if "MemTotal" not in found or "MemAvailable" not in found:
        return None
    total, free = found["MemTotal"], found["MemAvailable"]
    for limit, used in _cgroup_limits(root):
        total, free = min(total, limit), min(free, max(0, limit - used))
    return Device(HOST, total, free)


def _cgroup_limits(root: Path) -> list[tuple[int, int]]:
    """(limit, used) of each cgroup from this process's up to the root that has a limit. Version 2 only."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if own is None:
        return []
    top = root / "sys/fs/cgroup"
    group = top / own.lstrip("/")
    found: list[tuple[int, int]] = []
    while group.is_relative_to(top):
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            found.append((limit, max(0, used - _droppable(group / "memory.stat"))))
        if group == top:
            break
        group = group.parent
    return found


def _number(path: Path) -> int | None:
    """None for `max`, and where there is no such file."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _droppable(path: Path) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
