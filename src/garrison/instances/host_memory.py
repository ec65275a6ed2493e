"""Memory of this machine, or of the cgroup that this process is confined to. Linux; reads a few small files."""

from pathlib import Path

from garrison.instances.room.values import HOST, Device

__all__ = ["read_host"]


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
