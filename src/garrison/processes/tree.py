"""Ancestors and descendants in one snapshot of the process table. Pure."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from garrison.base.identity import ProcessId

if TYPE_CHECKING:
    from garrison.processes.process import Process

__all__ = ["line_of", "post_order", "rootmost", "subtree"]


def post_order(roots: Iterable[ProcessId], snapshot: "Mapping[int, Process]") -> tuple[ProcessId, ...]:
    """The trees under `roots`, children before their parents, each process once; roots that have ended are omitted."""
    children: dict[int, list[Process]] = {}
    for process in snapshot.values():
        children.setdefault(process.parent, []).append(process)
    ordered: dict[ProcessId, None] = {}
    entered: set[int] = set()

    def visit(process: "Process") -> None:
        if process.id.pid in entered:
            return
        entered.add(process.id.pid)
        for child in sorted(children.get(process.id.pid, ()), key=lambda one: one.id):
            # A child is never older than its parent: if it seems so, a pid was reused during the snapshot.
            if child.id.start >= process.id.start:
                visit(child)
        ordered[process.id] = None

    for root in roots:
        found = snapshot.get(root.pid)
        if found is not None and found.id == root:
            visit(found)
    return tuple(ordered)


def rootmost(pids: Iterable[int], snapshot: "Mapping[int, Process]") -> tuple[int, ...]:
    """Those of `pids` without an ancestor among `pids`: workers inherit the listening socket of their server."""
    holders = set(pids)

    def has_holder_above(pid: int) -> bool:
        seen = {pid}
        above = snapshot[pid].parent if pid in snapshot else 0
        while above in snapshot and above not in seen:
            if above in holders:
                return True
            seen.add(above)
            above = snapshot[above].parent
        return False

    return tuple(sorted(pid for pid in holders if not has_holder_above(pid)))


def line_of(pid: int, snapshot: "Mapping[int, Process]") -> tuple[int, ...]:
    """`pid` and its ancestors."""
    line: list[int] = []
    while pid in snapshot and pid not in line:
        line.append(pid)
        pid = snapshot[pid].parent
    return tuple(line)


def subtree(root: ProcessId, snapshot: "Mapping[int, Process]") -> "dict[int, Process]":
    """The part of `snapshot` that is `root` and its descendants; empty when `root` is gone."""
    return {one.pid: snapshot[one.pid] for one in post_order((root,), snapshot)}
