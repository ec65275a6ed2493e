"""The seam to the server behind a port: what it serves, how it was started, and whether it still does its work."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

from garrison.base.errors import InvalidError, PortForeignError
from garrison.preflight.refusal import holder_details

if TYPE_CHECKING:
    from garrison.preflight.holders import PortVerdict

__all__ = ["PortServer", "PortServers", "described", "in_vain", "refused", "stuck"]

ServerState = Literal["serves", "starts", "works", "stuck"]
_STATE_WORDS = {
    "serves": "serving",
    "starts": "starting",
    "works": "not answering, but using the CPU",
    "stuck": "neither answering nor using the CPU",
}


@dataclass(frozen=True, slots=True)
class PortServer:
    """A server, seen from outside.

    Attributes:
        title: the engine's name, for people.
        model: what it serves, by its command line; None when that does not say.
        since: when it was started; None where the system does not say.
        parent: pid and command of the process that started it; None when that has ended.
        state: `serves`: it answers. `starts`: it does not listen yet. `works`: it does not answer, and uses the CPU.
            `stuck`: neither.
    """

    pid: int
    command: str
    state: ServerState
    model: str | None = None
    since: datetime | None = None
    parent: str | None = None
    title: str = "vLLM"

    @property
    def is_alive(self) -> bool:
        """Whether somebody may need it."""
        return self.state != "stuck"


class PortServers(Protocol):
    def look(self, verdict: "PortVerdict") -> PortServer:
        """The first server of an `ours` verdict; its state is that of the liveliest of them. May take seconds."""


def described(server: PortServer, now: datetime) -> str:
    """`pid 12, model acme/tiny, started 2026-01-02 03:04:05 UTC (3 h ago), serving: vllm serve …`."""
    facts = [f"pid {server.pid}"]
    if server.model is not None:
        facts.append(f"model {server.model}")
    if server.since is not None:
        facts.append(f"started {server.since:%Y-%m-%d %H:%M:%S} UTC ({_age((now - server.since).total_seconds())} ago)")
    facts.append(_STATE_WORDS[server.state])
    started = f", started by {server.parent}" if server.parent is not None else ""
    return _visible(f"{', '.join(facts)}: {server.command}{started}")


def stuck(server: PortServer, port: int, now: datetime) -> str:
    """The sentence for a server that is stopped without asking."""
    return f"port {port} is held by your {server.title}, which is stuck and will be stopped: {described(server, now)}"


def refused(verdict: "PortVerdict", server: PortServer | None, port: int, now: datetime) -> PortForeignError:
    """The error for a living server that the policy spares, or that a person wants to keep."""
    details: dict[str, object] = dict(holder_details(verdict.roots, verdict.listeners))
    if server is None:
        pids = ", ".join(str(root.id.pid) for root in verdict.roots)
        message = f"port {port} is held by your {verdict.engine}, which was not stopped: pid {pids}"
    else:
        message = f"port {port} is held by your {server.title}, which was not stopped: {described(server, now)}"
        details |= {"model": server.model, "state": server.state}
    return PortForeignError(
        message, hint="Pass --replace to stop it and take the port, or --port to use another one.", details=details
    )


def in_vain(port: int, reason: str) -> InvalidError:
    """The error for a start that would fail anyway."""
    return InvalidError(
        f"port {port} is held by a server, which was not stopped because the new engine would not start: {reason}",
        hint="Fix the argument. If the engine accepts it after all, stop the server yourself.",
    )


def _visible(text: str) -> str:
    """A process chooses its own arguments: nothing in them may move the cursor."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
