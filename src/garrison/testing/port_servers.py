"""The in-memory twin of `preflight.servers.PortServers`."""

from garrison.preflight.holders import PortVerdict
from garrison.preflight.servers import PortServer

__all__ = ["MemoryServers"]


class MemoryServers:
    """Every look finds `server`; `looks` counts them."""

    def __init__(self, server: PortServer) -> None:
        self.server = server
        self.looks = 0

    def look(self, verdict: PortVerdict) -> PortServer:
        self.looks += 1
        return self.server
