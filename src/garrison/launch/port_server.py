"""The server that holds a port: what it serves, how it was started, and whether it still does its work."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, Protocol

from garrison.base.errors import PortForeignError
from garrison.base.redaction import shown_command
from garrison.engines.argv import is_flag, last_value
from garrison.engines.engine import Endpoint
from garrison.engines.registry import engine
from garrison.launch.shim import is_shim
from garrison.preflight.holders import PortVerdict
from garrison.preflight.listeners import Listener
from garrison.preflight.machine import Machine
from garrison.processes.process import Process
from garrison.processes.tree import post_order

__all__ = ["MachineServers", "PortServer", "PortServers", "described", "require_unused_socket"]

# A server that compiles for its first request answers nobody for a quarter of a minute, and is at work.
_ASK_SECONDS = 20.0
_ASK_TIMEOUT = 5.0

ServerState = Literal["serves", "starts", "works", "stuck"]
_STATE_WORDS = {
    "serves": "it serves",
    "starts": "it is starting",
    "works": "it answers nothing at the moment, and is at work",
    "stuck": "it neither answers nor works",
}


@dataclass(frozen=True, slots=True)
class PortServer:
    """A server, seen from outside.

    Attributes:
        model: what it serves, by its command line; None when that does not say.
        since: when it was started; None where the system does not say.
        parent: pid and command of what started it; None when that has ended.
        state: `serves`: it answers. `starts`: it does not listen yet. `works`: it answers nothing, and uses the CPU.
            `stuck`: neither.
    """

    pid: int
    command: str
    state: ServerState
    model: str | None = None
    since: datetime | None = None
    parent: str | None = None

    @property
    def is_alive(self) -> bool:
        """Whether somebody may need it."""
        return self.state != "stuck"


class PortServers(Protocol):
    def look(self, verdict: PortVerdict) -> PortServer:
        """The first of the servers that a verdict of `ours` is about; its state is that of the liveliest of them."""

    def pids(self, verdict: PortVerdict) -> frozenset[int]:
        """Their processes and all that descend from them."""


class MachineServers:
    """Those of the running machine."""

    def __init__(self, port: int, *, machine: Machine | None = None, seconds: float = _ASK_SECONDS) -> None:
        self._port = port
        self._machine = machine or Machine(lambda _: None)
        self._seconds = seconds

    def look(self, verdict: PortVerdict) -> PortServer:
        root = verdict.roots[0]
        listening = [one for one in verdict.listeners if one.listening]
        parent = self._starter(root)
        return PortServer(
            pid=root.id.pid,
            command=shown_command(root.argv),
            state=self._state(verdict, listening),
            model=model_of(root.argv),
            since=_started(root.id.pid),
            parent=None if parent is None else f"pid {parent.id.pid}: {shown_command(parent.argv)}",
        )

    def pids(self, verdict: PortVerdict) -> frozenset[int]:
        snapshot = self._machine.processes.snapshot()
        return frozenset(one.pid for one in post_order((root.id for root in verdict.roots), snapshot))

    def _starter(self, root: Process) -> Process | None:
        """What started it. A shim stands between an engine and the command that people know."""
        parent = self._machine.processes.read(root.parent) if root.parent > 1 else None
        if parent is not None and is_shim(parent.argv) and parent.parent > 1:
            return self._machine.processes.read(parent.parent) or parent
        return parent

    def _state(self, verdict: PortVerdict, listening: Sequence[Listener]) -> ServerState:
        before = self._cpu(verdict)
        endpoints = [endpoint_to_ask(verdict.roots[0], listener, self._port) for listener in listening]
        if asyncio.run(_one_answers(endpoints, self._seconds)):
            return "serves"
        if len(listening) < len(verdict.listeners):
            return "starts"
        return "works" if self._cpu(verdict) - before >= self._seconds else "stuck"

    def _cpu(self, verdict: PortVerdict) -> int:
        """Clock ticks that the servers have used: a hundred a second; one in a hundred is what an idle one uses."""
        snapshot = self._machine.processes.snapshot()
        tree = post_order((root.id for root in verdict.roots), snapshot)
        return sum(snapshot[one.pid].cpu for one in tree)


def require_unused_socket(path: str) -> None:
    """See that no server listens on a socket file: it would answer in place of the engine that is to be started.

    Raises:
        PortForeignError: exit 2. One does.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_ASK_TIMEOUT)
        try:
            probe.connect(path)
        except (OSError, ValueError):  # nothing there, or a file that a server has left behind
            return
    raise PortForeignError(
        f"a server listens on unix:{path}", hint="Stop it, or name another socket with --uds.", details={"uds": path}
    )


def endpoint_to_ask(process: Process, listener: Listener, port: int) -> Endpoint:
    """Where the listener is, spoken to as the server's own argv says."""
    said = engine("vllm").endpoint(process.argv)
    # An engine that is no server by its flags, and listens all the same, is asked as any other.
    return replace(said, host=str(listener.address), port=port, uds=None, health_port=None, protocol="http")


def model_of(argv: Sequence[str]) -> str | None:
    """The name clients use, else the model: the first word behind `serve`, or the value of `--model`."""
    named = last_value(argv, {"--served-model-name"}) or last_value(argv, {"--model"})
    if named is not None or "serve" not in argv:
        return named
    behind = argv[argv.index("serve") + 1 :]
    return behind[0] if behind and not is_flag(behind[0]) else None


def described(server: PortServer, now: datetime) -> str:
    """`pid 12, acme/tiny, up for 3 h, it serves: vllm serve …`."""
    facts = [f"pid {server.pid}"]
    if server.model is not None:
        facts.append(f"model {server.model}")
    if server.since is not None:
        facts.append(f"started {server.since:%Y-%m-%d %H:%M:%S} UTC ({_age((now - server.since).total_seconds())} ago)")
    facts.append(_STATE_WORDS[server.state])
    started = f", started by {server.parent}" if server.parent is not None else ""
    return _visible(f"{', '.join(facts)}: {server.command}{started}")


async def _one_answers(endpoints: Sequence[Endpoint], seconds: float) -> bool:
    return any(await asyncio.gather(*(_answers(endpoint, seconds) for endpoint in endpoints)))


async def _answers(endpoint: Endpoint, seconds: float) -> bool:
    """Whether anything at all comes back within `seconds`."""
    from garrison.launch.run.probe import EngineProbe  # on a free port nobody is asked

    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with EngineProbe(endpoint, engine("vllm").readiness, timeout=min(_ASK_TIMEOUT, seconds)) as probe:
        while loop.time() < end:
            begun = loop.time()
            if (await probe.ask()).heard:
                return True
            # A refused connection comes back at once, and the next one will too.
            await asyncio.sleep(max(0.0, min(1.0 - (loop.time() - begun), end - loop.time())))
    return False


def _started(pid: int) -> datetime | None:
    import psutil  # only who finds the port taken needs it

    try:
        return datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)
    except psutil.Error:
        return None


def _visible(text: str) -> str:
    """A process names its arguments itself: nothing in them may move the cursor."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
