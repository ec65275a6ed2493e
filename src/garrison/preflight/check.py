"""The preflight: the port is free or made free, the GPUs are within their limits.

Exit codes, steps and field names are those that the seed documents for `vllm-preflight`. It runs before every start of
a server, and on a free port with the GPUs skipped it imports neither the process half nor the GPU half.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError, PortForeignError
from garrison.base.locks import FileLock, file_lock
from garrison.preflight.machine import Machine
from garrison.preflight.policy import PortPolicy
from garrison.preflight.port import Finding, look_at_port
from garrison.preflight.report import PreflightReport, PreflightRequest

if TYPE_CHECKING:
    from garrison.base.identity import ProcessId
    from garrison.preflight.gpu.probe import GpuProbe
    from garrison.preflight.holders import PortVerdict
    from garrison.preflight.listeners import Sockets
    from garrison.preflight.servers import PortServers
    from garrison.processes.process import Processes

__all__ = ["Ask", "PreflightReport", "PreflightRequest", "check", "port_lock"]

Ask = Callable[[str, str], bool]
"""Puts a question to a person: what holds the port, and what to agree to."""


def check(
    request: PreflightRequest,
    policy: PortPolicy,
    *,
    processes: "Processes | None" = None,
    sockets: "Sockets | None" = None,
    gpus: "Sequence[GpuProbe] | None" = None,
    servers: "PortServers | None" = None,
    clock: Clock | None = None,
    say: Callable[[str], None],
    ask: Ask | None = None,
) -> PreflightReport:
    """Clear the port, then check the GPUs. Does not take the lock: see `port_lock`.

    Args:
        gpus: the ways to the driver, in the order they are tried.
        servers: how a policy that spares living servers learns which are alive; without it, all of them count as alive.
        say: accepts one sentence for people, as it happens.
        ask: called where the policy refuses to stop a living server; None where no person can answer.

    Raises:
        PortForeignError: exit 2. PortOtherUserError: 3. PortUnattributableError: 4. PortStuckError: 5.
        GpuThresholdError, InvalidError: exit 1.
        Each has `host` and `port` in its details; those of the port also have `pids`, `cmdlines` and `uids`.
    """
    machine = Machine(say, processes=processes, sockets=sockets, clock=clock)
    run = _Check(request, policy, machine, gpus, servers, ask)
    with _naming_the_endpoint(request):
        report = PreflightReport(host=request.host, port=request.port)
        if not request.skip_port:
            report = run.port(report)
        if not request.skip_gpu:
            report = run.thresholds(report)
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
        InvalidError: the lock file is a symlink or not a regular file, or cannot be opened.
    """
    purpose = f"is checking or starting a server on port {request.port}"
    with _naming_the_endpoint(request), file_lock(request.lockfile, timeout=0, purpose=purpose, clock=clock) as lock:
        yield lock


@dataclass(frozen=True, slots=True)
class _Check:
    request: PreflightRequest
    policy: PortPolicy
    machine: Machine
    gpus: "Sequence[GpuProbe] | None"
    servers: "PortServers | None"
    ask: Ask | None

    def port(self, report: PreflightReport) -> PreflightReport:
        request, where = self.request, f"{self.request.host} port {self.request.port}"
        finding = look_at_port(request, self.policy, self.machine)
        if not finding.could_scan:
            warning = "the listeners of this machine cannot be read; the port was tried by binding it"
            report = replace(report, could_scan=False, warnings=(warning,))
        verdict = finding.verdict
        if verdict is None:
            self.machine.say(f"{where} is free")
            return report
        report = replace(report, agreed=self._settle(verdict), held_by=verdict.engine)
        if not self.policy.dry_run:
            return self._reclaim(finding, verdict, report)
        roots = tuple(root.id.pid for root in verdict.roots)
        self.machine.say(f"{where}: would stop pid {', '.join(map(str, roots))}")
        return replace(report, port_action="would-stop", would_stop_roots=roots)

    def _settle(self, verdict: "PortVerdict") -> "frozenset[ProcessId]":
        """Return when the servers may be stopped, with those that somebody agreed to stop just now.

        Raises:
            PortForeignError: they are alive, and nobody can be asked, or the answer was no.
            InvalidError, GpuThresholdError: nothing is stopped for a start that would fail.
        """
        from garrison.preflight import servers
        from garrison.preflight.policy import decide, needs_look

        port, now = self.request.port, self.machine.clock.now()
        looks = self.servers is not None and needs_look(self.policy, verdict)
        server = self.servers.look(verdict) if self.servers is not None and looks else None
        agreed: frozenset[ProcessId] = frozenset()
        decision = decide(self.policy, verdict, server)
        if decision == "in-vain":
            raise servers.in_vain(port, str(self.policy.in_vain))
        if decision == "refuse":
            if server is None or self.ask is None:
                raise servers.refused(verdict, server, port, now)
            held = f"port {port} is held by your {server.title}: {servers.described(server, now)}"
            if not self.ask(held, f"Stop pid {server.pid} and take port {port}?"):
                raise PortForeignError(f"nothing was done: pid {server.pid} still holds port {port}")
            agreed = frozenset(root.id for root in verdict.roots)
        if decision == "stop-stuck" and server is not None:
            self.machine.say(servers.stuck(server, port, now))
        if self.policy.gpus_first and not self.request.skip_gpu:
            from garrison.preflight.gpu.check import foresee

            foresee(self.request, self._pids(verdict), self._probes())
        return agreed

    def _reclaim(self, finding: Finding, verdict: "PortVerdict", report: PreflightReport) -> PreflightReport:
        """Stop what holds the port, and see the GPU memory that it held come free."""
        from garrison.preflight.gpu.check import memory_held, wait_for_release
        from garrison.preflight.stop import stop_holders

        probes = () if self.request.skip_gpu else self._probes()
        before = memory_held(self._pids(verdict), probes)
        stopped = stop_holders(self.request, finding, self.machine)
        number = len(stopped.signalled)
        ended = "1 process was stopped" if number == 1 else f"{number} processes were stopped"
        self.machine.say(f"{self.request.host} port {self.request.port} is free: {ended}")
        warnings = list(report.warnings)
        if stopped.survivors:
            pids = ", ".join(str(one.pid) for one in stopped.survivors)
            warnings.append(f"the port is free, but pid {pids} survived SIGKILL and may still hold GPU memory")
        released = None
        if before is not None:
            released, complete = wait_for_release(before, probes, self.machine)
            self.machine.say(f"{released} MiB of GPU memory came free")
            if not complete:
                warnings.append(
                    f"only {released} MiB of {sum(before.held.values())} MiB of GPU memory came free in time"
                )
        return replace(
            report,
            port_action="stopped",
            reclaimed_roots=tuple(root.id.pid for root in verdict.roots),
            killed=tuple(one.pid for one in stopped.killed),
            released_mib=released,
            warnings=tuple(warnings),
        )

    def thresholds(self, report: PreflightReport) -> PreflightReport:
        from garrison.preflight.gpu.check import check_gpus

        found = check_gpus(self.request, self._probes(), dry_run=self.policy.dry_run)
        return replace(
            report,
            gpus=found.gpus,
            gpu_check_source=found.source,
            gpu_problems=found.problems,
            would_fail=found.would_fail,
            warnings=(*report.warnings, *found.warnings),
        )

    def _probes(self) -> "Sequence[GpuProbe]":
        if self.gpus is not None:
            return self.gpus
        from garrison.preflight.gpu import check as gpu_check

        return gpu_check.default_probes()

    def _pids(self, verdict: "PortVerdict") -> frozenset[int]:
        """The servers' processes and all that descend from them."""
        from garrison.processes.tree import post_order

        snapshot = self.machine.processes.snapshot()
        return frozenset(one.pid for one in post_order((root.id for root in verdict.roots), snapshot))


@contextlib.contextmanager
def _naming_the_endpoint(request: PreflightRequest) -> Iterator[None]:
    try:
        yield
    except GarrisonError as error:
        error.details = {"host": request.host, "port": request.port} | error.details
        raise
