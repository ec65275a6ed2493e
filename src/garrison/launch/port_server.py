"""The server that holds a port, on the running machine: asked as its engine is asked, and watched for its CPU use."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from garrison.base.errors import InvalidError
from garrison.base.identity import start_time
from garrison.base.procfs import has_proc
from garrison.base.redaction import shown_command
from garrison.preflight.machine import Machine

if TYPE_CHECKING:
    from garrison.engines.engine import Endpoint, Engine
    from garrison.preflight.holders import PortVerdict
    from garrison.preflight.listeners import Listener
    from garrison.preflight.servers import PortServer, ServerState
    from garrison.processes.process import Process

__all__ = ["MachineServers", "endpoint_to_ask", "engine_called", "model_of", "started_at"]

# A server that compiles for its first request does not answer for a quarter of a minute, but uses the CPU.
_ASK_SECONDS = 20.0
_ASK_TIMEOUT = 5.0
_MODEL_FLAGS = ({"--served-model-name"}, {"--alias", "-a"}, {"--model", "-m"})


class MachineServers:
    """The `PortServers` of the running machine.

    Args:
        seconds: how long a server may neither answer nor work before it counts as stuck.
    """

    def __init__(self, port: int, *, machine: Machine | None = None, seconds: float = _ASK_SECONDS) -> None:
        self._port = port
        self._machine = machine or Machine(lambda _: None)
        self._seconds = seconds

    def look(self, verdict: "PortVerdict") -> "PortServer":
        from garrison.preflight.servers import PortServer  # only for a port that is held

        root = verdict.roots[0]
        engine = engine_called(verdict.engine)
        parent = self._starter(root)
        return PortServer(
            pid=root.id.pid,
            command=shown_command(root.argv),
            state=self._state(verdict, engine),
            model=model_of(root.argv),
            since=started_at(root.id.pid),
            parent=None if parent is None else f"pid {parent.id.pid}: {shown_command(parent.argv)}",
            title=engine.title,
        )

    def _starter(self, root: "Process") -> "Process | None":
        """What started it. A shim stands between an engine and the command that people know."""
        from garrison.launch.shim import is_shim

        parent = self._machine.processes.read(root.parent) if root.parent > 1 else None
        if parent is not None and is_shim(parent.argv) and parent.parent > 1:
            return self._machine.processes.read(parent.parent) or parent
        return parent

    def _state(self, verdict: "PortVerdict", engine: "Engine") -> "ServerState":
        import asyncio

        before = self._cpu(verdict)
        listening = [one for one in verdict.listeners if one.listening]
        endpoints = [endpoint_to_ask(verdict.roots[0], listener, self._port, engine) for listener in listening]
        if asyncio.run(_one_answers(endpoints, engine, self._seconds)):
            return "serves"
        if len(listening) < len(verdict.listeners):
            return "starts"
        return "works" if self._cpu(verdict) - before >= self._seconds else "stuck"

    def _cpu(self, verdict: "PortVerdict") -> int:
        """Clock ticks used by the servers so far: a hundred a second; one in a hundred is what an idle one uses."""
        from garrison.processes.tree import post_order

        ticks = 0
        for root in verdict.roots:
            tree = self._machine.processes.subtree(root.id)
            ticks += sum(tree[one.pid].cpu for one in post_order((root.id,), tree))
        return ticks


def engine_called(name: str) -> "Engine":
    """The engine of a record. One that this version does not know is asked as vLLM is."""
    from garrison.engines.registry import engine

    try:
        return engine(name)
    except InvalidError:
        return engine("vllm")


def endpoint_to_ask(process: "Process", listener: "Listener", port: int, engine: "Engine") -> "Endpoint":
    """Where the listener is, and how to speak to it according to the server's own argv."""
    said = engine.endpoint(process.argv)
    # An engine that is headless by its flags, but listens, is asked like any other.
    return replace(said, host=str(listener.address), port=port, uds=None, health_port=None, protocol="http")


def model_of(argv: Sequence[str]) -> str | None:
    """The name that clients use, else the model: the first word after `serve`, or the value of `--model`."""
    from garrison.engines.argv import is_flag, last_value

    named = next((value for flags in _MODEL_FLAGS if (value := last_value(argv, flags)) is not None), None)
    if named is not None or "serve" not in argv:
        return named
    behind = argv[argv.index("serve") + 1 :]
    return behind[0] if behind and not is_flag(behind[0]) else None


async def _one_answers(endpoints: Sequence["Endpoint"], engine: "Engine", seconds: float) -> bool:
    import asyncio

    return any(await asyncio.gather(*(_answers(endpoint, engine, seconds) for endpoint in endpoints)))


async def _answers(endpoint: "Endpoint", engine: "Engine", seconds: float) -> bool:
    """Whether anything at all comes back within `seconds`."""
    import asyncio

    from garrison.launch.run.probe import EngineProbe

    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with EngineProbe(endpoint, engine.readiness, timeout=min(_ASK_TIMEOUT, seconds)) as probe:
        while loop.time() < end:
            begun = loop.time()
            if (await probe.ask()).heard:
                return True
            # A refused connection comes back at once, and so will the next one.
            await asyncio.sleep(max(0.0, min(1.0 - (loop.time() - begun), end - loop.time())))
    return False


def started_at(pid: int) -> datetime | None:
    """When a process was started. On Linux psutil would be up to a second early: it rounds the time of boot down."""
    ticks = start_time(pid) if has_proc() else None
    if ticks is not None:
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return datetime.now(UTC) - timedelta(seconds=age)
    import psutil

    try:
        return datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)
    except psutil.Error:
        return None
