"""Requests to a shim: from its starter, and from processes of the same user through the control socket."""

import contextlib
import errno
import fcntl
import json
import os
import selectors
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from garrison.launch.shim import SOCKET_NAME, VERSION

__all__ = ["Control"]

_MOST_REQUEST_BYTES = 4096
_MOST_CLIENTS = 16
_CLIENT_SECONDS = 60.0
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
"""Python ignores SIGPIPE anyway."""
_PAUSE_SECONDS = 1.0
"""Before clients are accepted again after the system had no room for one."""


class Control:
    """The connections of one shim. Clients that break the protocol, or do not read their answers, are dropped.

    Args:
        answer: called with a verb and the timeout that came with it; returns the fields of the answer.
        on_starter_gone: called once, when the starter's end is closed.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        starter: socket.socket,
        answer: Callable[[str, float | None], dict[str, Any] | None],
        on_starter_gone: Callable[[], None],
    ) -> None:
        self._selector = selector
        self._answer = answer
        self._on_starter_gone = on_starter_gone
        self._clients: set[_Client] = set()
        self._listener: socket.socket | None = None
        self._accept_again_at: float | None = None
        self._path: Path | None = None
        self._starter: _Client | None = self._add(starter)
        self._starter.watches = True

    @property
    def has_starter(self) -> bool:
        return self._starter is not None

    def listen(self, directory: Path) -> None:
        """Open the control socket, mode 0600, in `directory`, which is made if it is missing.

        Raises:
            OSError: it cannot be made, the directory is not private to this user, or another shim has it.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(1, f"{directory} must belong to this user and have mode 0700")
        self._lock(directory)
        self._path = directory / SOCKET_NAME
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            self._listener.bind(str(self._path))
        finally:
            os.umask(before)
        self._listener.listen(_MOST_CLIENTS)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _lock(self, directory: Path) -> None:
        """Hold the directory until this process ends: the socket and the status file in it are those of one engine, and
        a shim that is about to end would remove its successor's."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise OSError(errno.EBUSY, f"another engine runs in {directory}") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                os.close(descriptor)
                raise

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event to the starter and to every watcher."""
        for client in list(self._clients):
            if client.watches and not client.send(event):
                self._drop(client)

    def drop_idle(self) -> None:
        now = time.monotonic()
        if self._accept_again_at is not None and now >= self._accept_again_at and self._listener is not None:
            self._accept_again_at = None
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        for client in list(self._clients):
            if not client.watches and now - client.heard > _CLIENT_SECONDS:
                self._drop(client)

    def close(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:  # no descriptors left: the client that waits would wake the loop again at once
            self._selector.unregister(self._listener)
            self._accept_again_at = time.monotonic() + _PAUSE_SECONDS
            return
        with contextlib.suppress(OSError):
            if _peer_uid(connection) in (0, os.geteuid()) and len(self._clients) < _MOST_CLIENTS:
                self._add(connection)
            else:
                connection.close()

    def _add(self, connection: socket.socket) -> "_Client":
        connection.setblocking(False)
        client = _Client(connection)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._on_data(client))
        return client

    def _on_data(self, client: "_Client") -> None:
        lines = client.lines()
        for line in lines or ():
            if not client.send(self._reply(client, line)):
                lines = None
                break
        if lines is None:
            self._drop(client)

    def _drop(self, client: "_Client") -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        self._selector.unregister(client.connection)
        client.connection.close()
        if client is self._starter:
            self._starter = None
            self._on_starter_gone()

    def _reply(self, client: "_Client", line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            version, verb, timeout = request["v"], request["do"], request.get("timeout")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {"ok": False, "error": "malformed request"}
        if version != VERSION:
            return {"ok": False, "error": f"unsupported protocol version; this shim speaks {VERSION}"}
        if timeout is not None and (type(timeout) not in (int, float) or not 0 <= timeout <= 86400):
            return {"ok": False, "error": "timeout must be a number of seconds from 0 to 86400"}
        if verb == "watch":
            client.watches, verb = True, "status"
        found = self._answer(verb, timeout)
        return {"ok": False, "error": "unknown request"} if found is None else {"ok": True, **found}


def _peer_uid(connection: socket.socket) -> int:
    """The user at the other end of a unix socket. Raises OSError."""
    if sys.platform == "darwin":  # untried: `struct xucred` of <sys/ucred.h>, by LOCAL_PEERCRED of <sys/un.h>
        return int(struct.unpack_from("II", connection.getsockopt(0, 1, 76))[1])
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[1])


class _Client:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.heard = time.monotonic()
        self.watches = False
        self._rest = b""

    def lines(self) -> list[bytes] | None:
        """Whole requests; None when the peer has closed, or a request is too long."""
        try:
            data = self.connection.recv(_MOST_REQUEST_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return None if not data or len(self._rest) >= _MOST_REQUEST_BYTES else lines

    def send(self, message: dict[str, Any]) -> bool:
        data = json.dumps({"v": VERSION, **message}).encode() + b"\n"
        try:
            return self.connection.send(data, _NO_SIGNAL) == len(data)
        except OSError:
            return False
