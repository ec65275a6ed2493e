"""A worker's plane with a real link, and a control process at its other end that follows a script."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway_lab import GatewayLab

from garrison.gateway.link import messages
from garrison.gateway.link.peer import Peer, control_peer
from garrison.gateway.worker.link import Link

__all__ = ["Control", "LinkLab"]


class Control:
    """The control process: answers as `script` says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.got: list[Any] = []
        self.peers: list[Peer[Any]] = []
        self.script: Callable[[Any, Peer[Any]], None] = lambda message, peer: None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(self._accepted, self.path)

    def _accepted(self) -> Peer[Any]:
        def received(message: Any) -> None:
            self.got.append(message)
            self.script(message, peer)

        peer = control_peer(received, lambda: None)
        self.peers.append(peer)
        return peer

    def send(self, message: messages.FromControl) -> None:
        assert self.peers[-1].send(message)

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.got if isinstance(one, kind)]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for peer in self.peers:
            peer.close()


class LinkLab:
    """A lab with a real link instead of the fake one."""

    def __init__(self, lab: GatewayLab, control: Control) -> None:
        self.lab, self.control = lab, control
        self.ordered: list[Any] = []
        hello = messages.Hello(protocol=messages.PROTOCOL, version="1", pid=1, start=1)
        self.link = Link(lab.plane, str(control.path), lambda: hello, self.ordered.append)
        lab.plane.link = self.link

    async def connected(self, times: int = 1) -> None:
        await self.lab.until(lambda: len(self.control.of(messages.Hello)) == times)
