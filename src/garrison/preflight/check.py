"""The preflight: the port is free or made free, the GPUs are within their limits.

Exit codes, steps and field names are those the seed documents for `vllm-preflight`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError
from garrison.base.locks import FileLock, file_lock
from garrison.preflight.gpu_check import GpuFinding, check_gpus, memory_held, wait_for_release
from garrison.preflight.gpu_probe import GpuProbe, default_probes
from garrison.preflight.listeners import Sockets
from garrison.preflight.machine import Machine, this_machine
from garrison.preflight.port import Finding, look_at_port, stop_holders
from garrison.preflight.processes import Processes
from garrison.preflight.reclaim import Stopped
from garrison.preflight.report import PortAction, PreflightReport, PreflightRequest
from garrison.preflight.tree import post_order

__all__ = ["PreflightReport", "PreflightRequest", "check", "port_lock"]


def check(
    request: PreflightRequest,
    *,
    processes: Processes | None = None,
    sockets: Sockets | None = None,
    gpus: Sequence[GpuProbe] | None = None,
    clock: Clock | None = None,
    say: Callable[[str], None],
) -> PreflightReport:
    """Clear the port, then check the GPUs. Does not take the lock: see `port_lock`.

    Args:
        gpus: the ways to the driver, in the order they are tried.
        say: takes one sentence for people, as it happens.

    Raises:
        PortForeignError: exit 2. PortOtherUserError: 3. PortUnattributableError: 4. PortStuckError: 5.
        GpuThresholdError, InvalidError: exit 1.
        Every one has `host` and `port` in its details, those of the port also `pids`, `cmdlines` and `uids`.
    """
    machine = this_machine(say, processes=processes, sockets=sockets, clock=clock)
    probes = () if request.skip_gpu else default_probes() if gpus is None else gpus
    with _naming_the_endpoint(request):
        finding = look_at_port(request, machine)
        action, stopped, released, warnings = _clear(request, finding, probes, machine)
        gpu = GpuFinding() if request.skip_gpu else check_gpus(request, probes)
    if not finding.could_scan:
        warnings.append("the listeners of this machine cannot be read; the port was tried by binding it")
    warnings += gpu.warnings
    for warning in warnings:
        say(f"warning: {warning}")
    for failure in gpu.would_fail:
        say(f"would fail: {failure}")
    roots = tuple(root.id.pid for root in finding.verdict.roots)
    return PreflightReport(
        host=request.host,
        port=request.port,
        port_action=action,
        reclaimed_roots=roots if action == "stopped" else (),
        could_scan=finding.could_scan,
        gpus=gpu.gpus,
        gpu_check_source=gpu.source,
        would_stop_roots=roots if action == "would-stop" else (),
        killed=tuple(one.pid for one in stopped.killed) if stopped else (),
        released_mib=released,
        gpu_problems=gpu.problems,
        would_fail=gpu.would_fail,
        warnings=tuple(warnings),
    )


@contextlib.contextmanager
def port_lock(request: PreflightRequest, *, clock: Clock | None = None) -> Iterator[FileLock]:
    """Hold the port's lock for the body, or until `release()`. A second preflight on the port fails at once.

    Raises:
        LockedError: exit 13. The seed documents no code for it; 1 to 5 all say something else.
        InvalidError: the lock file is a symlink or no regular file, or cannot be opened.
    """
    purpose = f"is checking or starting a server on port {request.port}"
    with _naming_the_endpoint(request), file_lock(request.lockfile, timeout=0, purpose=purpose, clock=clock) as lock:
        yield lock


def _clear(
    request: PreflightRequest, finding: Finding, probes: Sequence[GpuProbe], machine: Machine
) -> tuple[PortAction, Stopped | None, int | None, list[str]]:
    """Stop what may be stopped, and wait for its GPU memory: (action, what was stopped, MiB released, warnings)."""
    where = f"{request.host} port {request.port}"
    roots = finding.verdict.roots
    if finding.verdict.kind == "free":
        machine.say(f"{where} is free")
        return "noop", None, None, []
    if request.dry_run:
        machine.say(f"{where}: would stop pid {', '.join(str(root.id.pid) for root in roots)}")
        return "would-stop", None, None, []
    warnings = []
    tree = post_order((root.id for root in roots), machine.processes.snapshot())
    before = memory_held([one.pid for one in tree], probes) if probes else None
    stopped = stop_holders(request, finding, machine)
    machine.say(f"{where} is free: stopped {len(stopped.signalled)} processes")
    if stopped.survivors:
        pids = ", ".join(str(one.pid) for one in stopped.survivors)
        warnings.append(f"the port is free, but pid {pids} did not end even on SIGKILL and may hold GPU memory")
    released = None
    if before is not None:
        released, complete = wait_for_release(before, probes, machine)
        machine.say(f"{released} MiB of GPU memory came free")
        if not complete:
            warnings.append(f"of {sum(before.held.values())} MiB of GPU memory only {released} MiB came free in time")
    return "stopped", stopped, released, warnings


@contextlib.contextmanager
def _naming_the_endpoint(request: PreflightRequest) -> Iterator[None]:
    try:
        yield
    except GarrisonError as error:
        error.details = {"host": request.host, "port": request.port} | error.details
        raise
