"""The processes that hold the port, and whether they may be stopped."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from garrison.base.identity import ProcessId
from garrison.preflight.addresses import Address
from garrison.preflight.classify import signature_of
from garrison.preflight.listeners import Listener, Sockets, conflicting
from garrison.processes.process import Process, Processes
from garrison.processes.tree import line_of, rootmost

__all__ = ["Holder", "PortVerdict", "find_holders", "judge_holders", "started_engines"]

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Holder:
    """A conflicting listener and the root-most processes that have its socket open; none where no owner is visible."""

    listener: Listener
    roots: tuple[Process, ...]


@dataclass(frozen=True, slots=True)
class PortVerdict:
    """What to do about the port.

    Attributes:
        kind: `free`; `ours`: the policy decides about `roots`; otherwise the reason why nothing may be stopped.
        roots: the processes to stop with their trees, or those in the way; by pid.
        listeners: the listeners that the verdict is about.
        engine: registry name of the first root's engine: as recorded when Garrison started it, else `vllm`.
    """

    kind: Literal["free", "ours", "foreign", "above-us", "other-user", "unattributable"]
    roots: tuple[Process, ...] = ()
    listeners: tuple[Listener, ...] = ()
    engine: str = "vllm"


def judge_holders(
    holders: Sequence[Holder],
    *,
    own_uid: int,
    own_line: Iterable[int] = (),
    signatures: Sequence[str] = (),
    allow_other_uid: bool = False,
    started: Mapping[int, str] | None = None,
) -> PortVerdict:
    """Judge in the seed's order: first what is not an engine, then another user's, then what has no visible owner.

    Args:
        own_line: this process and its ancestors, which it must not stop.
        started: engine names by pid, for holders that belong to an engine which Garrison started.
    """
    started = started or {}

    def is_engine(process: Process) -> bool:
        return process.id.pid in started or signature_of(process.exe, process.argv, signatures) is not None

    def chosen(kind: Literal["foreign", "above-us", "other-user"], pairs: list[tuple[Holder, Process]]) -> PortVerdict:
        return PortVerdict(kind, _by_pid(root for _, root in pairs), _once(holder.listener for holder, _ in pairs))

    if not holders:
        return PortVerdict("free")
    line = set(own_line)
    pairs = [(holder, root) for holder in holders for root in holder.roots]
    if foreign := [pair for pair in pairs if not is_engine(pair[1])]:
        return chosen("foreign", foreign)
    if above := [pair for pair in pairs if pair[1].id.pid in line]:
        return chosen("above-us", above)
    if not allow_other_uid and (others := [pair for pair in pairs if pair[1].uid != own_uid]):
        return chosen("other-user", others)
    if unknown := [holder for holder in holders if not holder.roots]:
        return PortVerdict("unattributable", (), _once(holder.listener for holder in unknown))
    roots = _by_pid(root for _, root in pairs)
    engine = started.get(roots[0].id.pid, "vllm")
    return PortVerdict("ours", roots, _once(holder.listener for holder in holders), engine)


def started_engines(
    holders: Iterable[Holder], known: Mapping[ProcessId, str], snapshot: Mapping[int, Process]
) -> dict[int, str]:
    """Engine names by pid, for the roots of `holders` that are, or descend from, a process in `known`."""
    found: dict[int, str] = {}
    for root in (root for holder in holders for root in holder.roots):
        # The table was read before the root: a pid that changed hands in between is not looked up.
        line = line_of(root.id.pid, snapshot) if snapshot.get(root.id.pid, root).id == root.id else ()
        named = (known.get(snapshot[pid].id) for pid in line)
        if (engine := next((name for name in named if name is not None), None)) is not None:
            found[root.id.pid] = engine
    return found


def _by_pid(processes: Iterable[Process]) -> tuple[Process, ...]:
    return tuple({process.id.pid: process for process in sorted(processes, key=lambda one: one.id)}.values())


def _once(listeners: Iterable[Listener]) -> tuple[Listener, ...]:
    return tuple(dict.fromkeys(listeners))


def find_holders(
    wanted: Sequence[Address], port: int, *, sockets: Sockets, processes: Processes, connected: bool = False
) -> tuple[tuple[Holder, ...], Mapping[int, Process]]:
    """The listeners that conflict with a bind to `wanted`, each with its holders, and the process table used.

    A listener may close, and a process end, between two reads: a listener without an owner is read again before it
    counts as such. On a free port no process is read, and the table is empty.

    Args:
        connected: look for connections with that local port instead.

    Raises:
        ScanError: the socket table cannot be read.
    """
    holders: tuple[Holder, ...] = ()
    snapshot: Mapping[int, Process] = {}
    for _ in range(_ATTEMPTS):
        listeners = conflicting(wanted, sockets.connections(port) if connected else sockets.listeners(port))
        if not listeners:
            return (), {}
        owners = processes.owners([one.inode for one in listeners if one.pid is None])
        snapshot = processes.snapshot()
        holders = tuple(Holder(one, _roots(one, owners, snapshot, processes)) for one in listeners)
        if all(holder.roots for holder in holders):
            break
    return holders, snapshot


def _roots(
    listener: Listener,
    owners: Mapping[int, frozenset[int]],
    snapshot: Mapping[int, Process],
    processes: Processes,
) -> tuple[Process, ...]:
    pids = {listener.pid} if listener.pid is not None else owners.get(listener.inode, frozenset())
    read = (processes.read(pid) for pid in rootmost(pids, snapshot))
    return tuple(process for process in read if process is not None)
