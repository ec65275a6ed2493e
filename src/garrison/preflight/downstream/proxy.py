"""The downstream command as a child: the port's lock is held until the child listens, signals are passed on, and the
exit code is the child's.

The environment is passed on unchanged, including the `VLLM_*` variables that Garrison reads. The seed promises
`vllm-preflight ./start.sh`, and such a script then calls `vllm-resolve-model` and `vllm-serve`, which read their
settings from those variables. Where Garrison itself starts an engine, it removes them.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NoReturn, Self

from garrison.base.clock import Clock
from garrison.base.errors import EngineTimeoutError, GarrisonError, PortStuckError
from garrison.base.identity import ProcessId
from garrison.base.locks import FileLock
from garrison.base.settings import Settings
from garrison.preflight.addresses import Address
from garrison.preflight.downstream.child import Child, SpawnedChild, replace_process
from garrison.preflight.downstream.progress import Progress, observe
from garrison.preflight.listeners import ScanError, Sockets, conflicting
from garrison.preflight.machine import Machine
from garrison.preflight.port import resolve_host
from garrison.preflight.reclaim import stop_trees
from garrison.preflight.report import PreflightRequest
from garrison.processes.process import Process, Processes
from garrison.processes.tree import post_order

__all__ = ["Patience", "exec_downstream", "run_proxied"]

# CPU use is read less often than the port: reading a large tree at every poll would itself be load.
_PROGRESS_SECONDS = 2.0
_AFTER_BIND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for the command to listen, in seconds.

    Attributes:
        bind_timeout: a hard limit; with None, as long as there is progress.
        poll: between two looks at the port.
        window: without a limit, how long the command's processes may use no CPU at all.
    """

    bind_timeout: float | None = None
    poll: float = 0.2
    window: float = 300.0

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings.start_bind_timeout, settings.start_bind_poll, settings.progress_window)


def run_proxied(
    argv: Sequence[str],
    request: PreflightRequest,
    *,
    lock: FileLock,
    patience: Patience | None = None,
    processes: Processes | None = None,
    sockets: Sockets | None = None,
    clock: Clock | None = None,
    start: Callable[[Sequence[str]], AbstractContextManager[Child]] = SpawnedChild,
    say: Callable[[str], None],
    takes_port: bool = True,
) -> int:
    """Start `argv`, release `lock` once it listens, pass signals on, and return its exit code.

    A command that exits without ever listening is not an error: its exit code is returned.

    Args:
        takes_port: False for a command that is known not to bind the port. It is not stopped for leaving it free.

    Raises:
        PortStuckError: exit 5. `bind_timeout` passed; the command and its descendants were stopped.
        EngineTimeoutError: exit 22. No sign of life within the window; they were stopped too.
        EngineMissingError, InvalidError: the command cannot be started.
    """
    machine = Machine(say, processes=processes, sockets=sockets, clock=clock)
    addresses = resolve_host(request, machine) if takes_port else ()
    with start(argv) as child:
        code = _until_bound(child, request, addresses, patience or Patience(), machine) if takes_port else None
        lock.release()
        while code is None:
            code = _step(child, _AFTER_BIND_SECONDS)
        return code


def exec_downstream(argv: Sequence[str], *, lock: FileLock) -> NoReturn:
    """Replace this process by `argv`. The lock is released; held by the server, it would block the next preflight.

    Raises:
        EngineMissingError, InvalidError: the command cannot be started.
    """
    # The descriptor of a flock is closed at exec, but the fallback directory would stay.
    lock.release()
    raise replace_process(argv)


def _step(child: Child, seconds: float) -> int | None:
    """Wait, pass a signal on if one came, and return the exit code if the child has ended."""
    code, number = child.wait(seconds)
    if number is not None:
        child.send(number)
    return code


def _until_bound(
    child: Child, request: PreflightRequest, addresses: Sequence[Address], patience: Patience, machine: Machine
) -> int | None:
    """Return None once the child listens, or its exit code if it ended before.

    What a child does in a network namespace of its own cannot be seen, so it is not waited for either.
    """
    begun = machine.clock.monotonic()
    progress, looked = Progress(begun, {}), begun - _PROGRESS_SECONDS
    strangers: set[int] = set()
    while True:
        if (code := _step(child, patience.poll)) is not None:
            return code
        if _is_bound(child.pid, request, addresses, strangers, machine):
            machine.say(f"the command listens on port {request.port} after {machine.clock.monotonic() - begun:.1f} s")
            return None
        now = machine.clock.monotonic()
        if now - looked >= min(_PROGRESS_SECONDS, patience.window / 4):
            looked = now
            tree, table = _tree(child.pid, machine)
            if any(machine.sockets.has_own_network(one.pid) for one in tree):
                machine.say("the command has a network of its own, so it is not seen when it listens")
                return None
            progress = observe(progress, tree, table, now)
        if patience.bind_timeout is None and progress.silent_for(now) >= patience.window:
            _stop(child, request, machine)
            raise _hung(request, patience.window)
        if patience.bind_timeout is not None and now - begun >= patience.bind_timeout:
            _stop(child, request, machine)
            raise _too_late(request, patience.bind_timeout)


def _is_bound(
    pid: int, request: PreflightRequest, addresses: Sequence[Address], strangers: set[int], machine: Machine
) -> bool:
    """Whether the child or one of its descendants listens on the port.

    A bound socket is not enough: vLLM binds at once and listens when the model is loaded. Until then a second preflight
    must find the lock, not a server to stop.

    A listener without a visible owner counts as the child's: the port was free when the child was started, and the
    descriptors of a child that changed its user cannot be read.
    """
    try:
        listeners = conflicting(addresses, machine.sockets.listeners(request.port))
    except ScanError:
        return machine.sockets.bind_error(addresses, request.port) is not None
    fresh = [one for one in listeners if one.listening and one.inode not in strangers]
    if not fresh:
        return False
    owners = machine.processes.owners([listener.inode for listener in fresh])
    ours = {one.pid for one in _tree(pid, machine)[0]}
    for listener in fresh:
        pids = {listener.pid} if listener.pid is not None else owners.get(listener.inode, frozenset())
        if not pids or pids & ours:
            return True
        strangers.add(listener.inode)
        machine.say(f"warning: {listener} is now held by pid {min(pids)}, which the command did not start")
    return False


def _tree(pid: int, machine: Machine) -> tuple[tuple[ProcessId, ...], Mapping[int, Process]]:
    """The process `pid` and its descendants, and the table they were found in."""
    root = machine.processes.read(pid)
    tree = machine.processes.subtree(root.id) if root is not None else {}
    return (post_order((root.id,), tree) if root is not None else ()), tree


def _stop(child: Child, request: PreflightRequest, machine: Machine) -> None:
    """Stop the command and its descendants, and reap it."""
    machine.say("stopping the command")
    root = machine.processes.read(child.pid)
    if root is not None:
        stop_trees(
            (root.id,),
            processes=machine.processes,
            is_free=lambda: True,
            timeout=request.stop_timeout,
            clock=machine.clock,
            say=machine.say,
        )
    child.wait(0)


def _too_late(request: PreflightRequest, seconds: float) -> GarrisonError:
    return PortStuckError(
        f"the command did not bind {request.host} port {request.port} within {seconds:g} s and was stopped",
        hint="Raise VLLM_START_BIND_TIMEOUT, or unset it to wait for as long as the command makes progress.",
        details={"host": request.host, "port": request.port},
    )


def _hung(request: PreflightRequest, seconds: float) -> GarrisonError:
    return EngineTimeoutError(
        f"the command used no CPU for {seconds:g} s, had not bound {request.host} port {request.port}, and was stopped",
        hint="Look at its output. GARRISON_PROGRESS_WINDOW changes this time, VLLM_START_BIND_TIMEOUT sets a limit.",
        details={"host": request.host, "port": request.port},
    )
