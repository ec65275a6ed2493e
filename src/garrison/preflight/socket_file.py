"""The socket file that a server will listen on. No server binds a file that exists, not even one that nobody uses."""

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from garrison.base.errors import InvalidError, PortForeignError
from garrison.base.presence import is_dir
from garrison.preflight import sock_diag

__all__ = ["clear_socket_file", "require_usable_socket_file"]

_CONNECT_SECONDS = 5.0
_MOST_BYTES = 107
"""The longest path of a unix socket on Linux, without the null byte at its end."""
_NOTHING_ACCEPTS = {errno.ECONNREFUSED, errno.ENOENT}
_SHOW_NAME, _SHOW_FILE = 1, 2
_UNIX_DIAG_BYTES = 16
_UNIX_DIAG_VFS = 1


def require_usable_socket_file(path: str) -> bool:
    """See that a server could listen on `path`, once the file that a former one left there is removed.

    Returns:
        Whether there is such a file.

    Raises:
        PortForeignError: exit 2. A server listens there, or is about to.
        InvalidError: no server could ever listen there.
    """
    _require_place(path)
    accepts = _accepts(path)
    try:
        found = Path(path).lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InvalidError(
            f"the socket {path} cannot be looked at: {error.strerror}", hint="Name another socket."
        ) from None
    if accepts:
        raise _in_use(f"a server listens on unix:{path}", path)
    if not stat.S_ISSOCK(found.st_mode):
        raise InvalidError(
            f"{path} exists and is no socket, so no server can listen there",
            hint="Name another socket, or remove the file.",
            details={"uds": path},
        )
    bound = _is_bound(found)
    if bound or (bound is None and accepts is None):
        raise _in_use(f"a server holds unix:{path}", path)
    return True


def clear_socket_file(path: str, say: Callable[[str], None]) -> None:
    """Remove the file that a server left on `path` when it ended, so that the next one can bind it.

    Raises:
        PortForeignError, InvalidError: as `require_usable_socket_file`, or the file may not be removed.
    """
    if not require_usable_socket_file(path):
        return
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise InvalidError(
            f"{path} was left behind by a server that has ended, and cannot be removed: {error.strerror}",
            hint="Remove it as its owner, or name another socket.",
            details={"uds": path},
        ) from None
    say(f"removed {path}, which a server that has ended left behind")


def _require_place(path: str) -> None:
    size = len(os.fsencode(path))
    if size > _MOST_BYTES or "\0" in path:
        raise InvalidError(
            f"the path of the socket has {size} bytes, and {_MOST_BYTES} at most are possible: {path}",
            hint="Name a socket with a shorter path.",
            details={"uds": path},
        )
    directory = Path(path).parent
    if not is_dir(directory):
        raise InvalidError(
            f"the socket {path} cannot be made: there is no directory {directory}",
            hint="Make the directory, or name another socket.",
            details={"uds": path},
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InvalidError(
            f"the socket {path} cannot be made: this user may not write to {directory}",
            hint="Name a socket in another directory.",
            details={"uds": path},
        )


def _in_use(message: str, path: str) -> PortForeignError:
    return PortForeignError(message, hint="Stop it, or name another socket.", details={"uds": path})


def _accepts(path: str) -> bool | None:
    """Whether a server listens; None where this user may not ask."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(path)
        except PermissionError:
            return None
        except OSError as error:
            return error.errno not in _NOTHING_ACCEPTS  # a server whose queue is full listens too
    return True


def _is_bound(file: os.stat_result) -> bool | None:
    """Whether a socket is bound to this file; None where it cannot be told.

    vLLM binds at once and listens when the model is loaded; until then it refuses connections, as if it had ended.
    """
    show = _SHOW_NAME | _SHOW_FILE
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, show, 0xFFFFFFFF, 0xFFFFFFFF)
    messages = sock_diag.ask(request, least=_UNIX_DIAG_BYTES)
    if messages is None:
        return None
    # The kernel's own form of a device number; of the inode it tells the lower half.
    wanted = struct.pack("=II", file.st_ino & 0xFFFFFFFF, os.major(file.st_dev) << 20 | os.minor(file.st_dev))
    return any(sock_diag.attribute(message[_UNIX_DIAG_BYTES:], _UNIX_DIAG_VFS) == wanted for message in messages)
