"""What a tree of processes has used: CPU time and memory, from /proc; and what a core has done in all."""

import os
import signal
import subprocess
from pathlib import Path

import psutil

__all__ = ["Tree", "core_seconds"]

_TICK = os.sysconf("SC_CLK_TCK")


class Tree:
    """A process and its descendants. Their list is kept until `refresh`, so that a reading costs little."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._pids = [process.pid]

    def refresh(self) -> None:
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._pids = [self._process.pid, *(child.pid for child in children)]

    def cpu(self) -> float:
        """Seconds of user and system time. The kernel counts exactly and shows hundredths."""
        return sum(_cpu(pid) for pid in self._pids)

    def resident(self) -> float:
        """MB now; pages that processes share are counted for each."""
        return self._memory("VmRSS")

    def peak(self) -> float:
        """MB at most: the sum of the processes' own peaks."""
        return self._memory("VmHWM")

    def end(self) -> None:
        """SIGTERM to the first process, SIGKILL to what is there five seconds later."""
        if self._process.poll() is None:
            self.refresh()
        processes = [_process(pid) for pid in self._pids]
        there = [process for process in processes if process is not None]
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        _gone, left = psutil.wait_procs(there, timeout=5)
        for process in left:
            process.kill()
        self._process.wait()

    def _memory(self, field: str) -> float:
        return sum(_kilobytes(pid, field) for pid in self._pids) * 1024 / 1e6


def core_seconds(core: int) -> float:
    """Seconds in which this core was not idle; what the hypervisor took counts too."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _wait, irq, softirq, steal = (int(word) for word in line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) / _TICK
    raise SystemExit(f"/proc/stat knows no core {core}")


def _cpu(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()  # from the third on
    return sum(int(ticks) for ticks in fields[11:15]) / _TICK  # its own, and that of children it has waited for


def _kilobytes(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
