"""Whether a server that holds the port may be stopped for a new one."""

from collections.abc import Callable, Sequence
from datetime import datetime

from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import InvalidError, PortForeignError
from garrison.base.identity import ProcessId
from garrison.engines.catalogue import Finding
from garrison.launch.port_server import MachineServers, PortServer, PortServers, described
from garrison.preflight.holders import PortVerdict
from garrison.preflight.refusal import holder_details
from garrison.preflight.report import PreflightRequest

__all__ = ["Permission"]


class Permission:
    """Called before a server is stopped; raises when nobody said that it may be.

    A server that serves, or starts, is stopped when `replace` says so, or somebody who is asked. One that neither
    answers nor works is stopped without asking: it is what a preflight is for.

    Args:
        replace: it was said on the command line.
        ask: puts a question to a person; None when nobody can be asked.
        say: takes one sentence for people.
        findings: what the engine is known to refuse in the new start's arguments.
    """

    def __init__(
        self,
        request: PreflightRequest,
        *,
        replace: bool,
        ask: Callable[[str], bool] | None,
        say: Callable[[str], None],
        findings: Sequence[Finding] = (),
        servers: PortServers | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._request = request
        self._replace = replace
        self._ask = ask
        self._say = say
        self._findings = findings
        self._servers = servers or MachineServers(request.port)
        self._clock = clock or SystemClock()
        self._given: frozenset[ProcessId] = frozenset()

    def __call__(self, verdict: PortVerdict) -> None:
        """Right before it is stopped.

        Raises:
            PortForeignError, InvalidError: as `agree`.
            GpuThresholdError: the GPUs will not be fit when it has ended.
        """
        self.agree(verdict)
        if not self._request.skip_gpu:
            from garrison.preflight.gpu.check import default_probes, foresee

            foresee(self._request, self._servers.pids(verdict), default_probes())

    def agree(self, verdict: PortVerdict) -> None:
        """Long before, so that nobody waits for a download in vain.

        Raises:
            PortForeignError: exit 2. It serves, and may not be stopped.
            InvalidError: the new engine would not start with its arguments; nothing is stopped for it.
        """
        self._see_the_arguments()
        roots = frozenset(root.id for root in verdict.roots)
        # Somebody agreed before the download, and it is the same server still.
        if self._replace or roots <= self._given:
            return
        port = self._request.port
        server = self._servers.look(verdict)
        now = self._clock.now()
        if not server.is_alive:
            self._say(f"port {port} is held by a vLLM that is stuck, and is stopped for it: {described(server, now)}")
            return
        if self._ask is None:
            raise _refused(verdict, server, port, now)
        self._say(f"port {port} is held by a vLLM of yours: {described(server, now)}")
        if not self._ask(f"Stop pid {server.pid} and take port {port}?"):
            raise _refused(verdict, server, port, now)
        self._given = roots

    def _see_the_arguments(self) -> None:
        if wrong := [finding.message for finding in self._findings if finding.level == "error"]:
            raise InvalidError(
                f"port {self._request.port} is held by a server, and is not freed for an engine that will refuse to"
                f" start: {wrong[0]}",
                hint="Fix the argument; or stop the server yourself, if the engine knows better.",
            )


def _refused(verdict: PortVerdict, server: PortServer, port: int, now: datetime) -> PortForeignError:
    return PortForeignError(
        f"port {port} is held by a vLLM of yours, which was not stopped: {described(server, now)}",
        hint="--replace stops it and takes the port; --port takes another one.",
        details=holder_details(verdict.roots, verdict.listeners) | {"model": server.model, "state": server.state},
    )
