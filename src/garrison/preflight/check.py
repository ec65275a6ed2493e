"""The preflight: the port is free or made free, the GPUs are within their limits.

Exit codes, steps and field names are those the seed documents for `vllm-preflight`. It runs before every start of a
server, and on a free port with the GPUs skipped it imports neither the process nor the GPU half.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError
from garrison.base.locks import FileLock, file_lock
from garrison.preflight.machine import Machine
from garrison.preflight.port import Finding, look_at_port
from garrison.preflight.report import PreflightReport, PreflightRequest

if TYPE_CHECKING:
    from garrison.preflight.gpu.probe import GpuProbe
    from garrison.preflight.holders import PortVerdict
    from garrison.preflight.listeners import Sockets
    from garrison.processes.process import Processes

__all__ = ["PreflightReport", "PreflightRequest", "check", "port_lock"]


def check(
    request: PreflightRequest,
    *,
    processes: "Processes | None" = None,
    sockets: "Sockets | None" = None,
    gpus: "Sequence[GpuProbe] | None" = None,
    clock: Clock | None = None,
    say: Callable[[str], None],
    may_stop: "Callable[[PortVerdict], None]" = lambda _: None,
) -> PreflightReport:
    """Clear the port, then check the GPUs. Does not take the lock: see `port_lock`.

    Args:
        gpus: the ways to the driver, in the order they are tried.
        say: takes one sentence for people, as it happens.
        may_stop: called with what holds the port before it is stopped, and in a dry run as well; raises when that must
            not be. vllm-preflight's contract is to stop it.

    Raises:
        PortForeignError: exit 2. PortOtherUserError: 3. PortUnattributableError: 4. PortStuckError: 5.
        GpuThresholdError, InvalidError: exit 1.
        Every one has `host` and `port` in its details, those of the port also `pids`, `cmdlines` and `uids`.
    """
    machine = Machine(say, processes=processes, sockets=sockets, clock=clock)
    with _naming_the_endpoint(request):
        finding = Finding(()) if request.skip_port else look_at_port(request, machine)
        report = PreflightReport(host=request.host, port=request.port, could_scan=finding.could_scan)
        if not finding.could_scan:
            warning = "the listeners of this machine cannot be read; the port was tried by binding it"
            report = replace(report, warnings=(warning,))
        if finding.verdict is not None:
            may_stop(finding.verdict)
        if finding.verdict is None:
            if not request.skip_port:
                say(f"{request.host} port {request.port} is free")
        elif request.dry_run:
            roots = tuple(root.id.pid for root in finding.verdict.roots)
            say(f"{request.host} port {request.port}: would stop pid {', '.join(map(str, roots))}")
            report = replace(report, port_action="would-stop", would_stop_roots=roots)
        else:
            report = _reclaim(request, finding, finding.verdict, gpus, machine, report)
        if not request.skip_gpu:
            report = _with_gpus(request, gpus, report)
    for warning in report.warnings:
        say(f"warning: {warning}")
    for failure in report.would_fail:
        say(f"would fail: {failure}")
    return report


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


def _reclaim(
    request: PreflightRequest,
    finding: Finding,
    verdict: "PortVerdict",
    gpus: "Sequence[GpuProbe] | None",
    machine: Machine,
    report: PreflightReport,
) -> PreflightReport:
    """Stop what holds the port, and see the GPU memory it held come free."""
    from garrison.preflight.gpu.check import default_probes, memory_held, wait_for_release
    from garrison.preflight.stop import stop_holders
    from garrison.processes.tree import post_order

    probes = () if request.skip_gpu else default_probes() if gpus is None else gpus
    roots = verdict.roots
    tree = post_order((root.id for root in roots), machine.processes.snapshot())
    before = memory_held([one.pid for one in tree], probes)
    stopped = stop_holders(request, finding, machine)
    number = len(stopped.signalled)
    ended = "1 process was stopped" if number == 1 else f"{number} processes were stopped"
    machine.say(f"{request.host} port {request.port} is free: {ended}")
    warnings = list(report.warnings)
    if stopped.survivors:
        pids = ", ".join(str(one.pid) for one in stopped.survivors)
        warnings.append(f"the port is free, but pid {pids} did not end even on SIGKILL and may hold GPU memory")
    released = None
    if before is not None:
        released, complete = wait_for_release(before, probes, machine)
        machine.say(f"{released} MiB of GPU memory came free")
        if not complete:
            warnings.append(f"of {sum(before.held.values())} MiB of GPU memory only {released} MiB came free in time")
    return replace(
        report,
        port_action="stopped",
        reclaimed_roots=tuple(root.id.pid for root in roots),
        killed=tuple(one.pid for one in stopped.killed),
        released_mib=released,
        warnings=tuple(warnings),
    )


def _with_gpus(
    request: PreflightRequest, gpus: "Sequence[GpuProbe] | None", report: PreflightReport
) -> PreflightReport:
    from garrison.preflight.gpu.check import check_gpus, default_probes

    found = check_gpus(request, default_probes() if gpus is None else gpus)
    return replace(
        report,
        gpus=found.gpus,
        gpu_check_source=found.source,
        gpu_problems=found.problems,
        would_fail=found.would_fail,
        warnings=(*report.warnings, *found.warnings),
    )


@contextlib.contextmanager
def _naming_the_endpoint(request: PreflightRequest) -> Iterator[None]:
    try:
        yield
    except GarrisonError as error:
        error.details = {"host": request.host, "port": request.port} | error.details
        raise
