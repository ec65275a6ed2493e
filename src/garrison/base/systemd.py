"""Telling systemd that a service is ready (sd_notify), where it wants to know."""

import contextlib
import os
import socket

__all__ = ["notify"]


def notify(state: str) -> None:
    """Send a state such as `READY=1` to the socket that `NOTIFY_SOCKET` names. Without one nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        sender.setblocking(False)
        sender.sendto(state.encode(), b"\0" + os.fsencode(address[1:]) if address[0] == "@" else os.fsencode(address))
