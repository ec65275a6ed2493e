"""Why the simulator cannot listen, from the error of the system. Pure."""

import errno
import os
import socket

from garrison.base.errors import GarrisonError, InvalidError, PortForeignError
from garrison.sim.config import SimConfig

__all__ = ["cannot_listen"]

_FIRST_UNPRIVILEGED = 1024
_MOST_PATH_BYTES = 107


def cannot_listen(config: SimConfig, error: OSError) -> GarrisonError:
    """The error for a port or a socket file that cannot be bound. One that is taken ends with 2, others with 1."""
    return _file(config.uds, error) if config.uds is not None else _port(config.host, config.port, error)


def _port(host: str, port: int, error: OSError) -> GarrisonError:
    if error.errno == errno.EADDRINUSE:
        return PortForeignError(
            f"port {port} of {host} is taken: Address already in use",
            hint=f"`garrison preflight --port {port}` shows by whom; or choose another --port, 0 for any free one.",
            details={"host": host, "port": port},
        )
    if isinstance(error, socket.gaierror):
        return InvalidError(f"host {host!r} cannot be resolved: {_said(error)}", hint="Use 127.0.0.1 for --host.")
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidError(
            f"host {host!r} is not an address of this machine",
            hint="Use one of its own for --host, 127.0.0.1, or 0.0.0.0 for all of them.",
        )
    if error.errno == errno.EACCES and port < _FIRST_UNPRIVILEGED:
        return InvalidError(
            f"port {port} is reserved: this user may not bind it", hint="Choose a --port of 1024 or more."
        )
    return InvalidError(
        f"cannot listen on {host}, port {port}: {_said(error)}", hint="Choose another --host or --port."
    )


def _file(path: str, error: OSError) -> GarrisonError:
    if error.errno == errno.EADDRINUSE:
        return PortForeignError(
            f"the socket file {path} exists: Address already in use",
            hint="Remove it if no server listens there, or name another --uds.",
            details={"uds": path},
        )
    size = len(os.fsencode(path))
    if size > _MOST_PATH_BYTES:
        return InvalidError(
            f"the path of the socket has {size} bytes, and the system allows {_MOST_PATH_BYTES}: {path}",
            hint="Name a shorter --uds.",
        )
    return InvalidError(f"cannot make the socket file {path}: {_said(error)}", hint="Name another --uds.")


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
