"""Resolves names to addresses, so that one hanging lookup does not delay the others.

The system's resolver may block a thread for any time. Here it has threads of its own, for which the process does not
wait when it exits. There is one lookup per name at a time; answers are cached, and an old one is used if no new one
arrives.
"""

import asyncio
import errno
import ipaddress
import socket
import threading
import time
from collections import deque
from concurrent.futures import Future

from garrison.net.threads import outcome, start_thread

__all__ = ["Resolver"]

_FRESH_SECONDS = 30.0
_PATIENCE_SECONDS = 0.5
"""How long to wait for a new answer if there is an old one."""
_THREADS = 128

_Addresses = tuple[str, ...]


class Resolver:
    """Addresses of names, as text. A numeric host is its own address and needs no lookup."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, _Addresses]] = {}
        self._asking: dict[str, Future[_Addresses]] = {}
        self._waiting: deque[str] = deque()
        self._running = 0
        self._lock = threading.Lock()

    def fresh(self, host: str) -> _Addresses | None:
        """Return the addresses if they are known without a lookup."""
        known = self._known.get(host)
        if known is None and _numeric(host):
            known = self._known[host] = (float("inf"), (host,))
        return known[1] if known is not None and time.monotonic() - known[0] < _FRESH_SECONDS else None

    async def addresses(self, host: str) -> _Addresses:
        """Return at least one address, the one to try first in front. The caller sets the deadline.

        Raises:
            socket.gaierror: the name does not resolve.
            OSError: the lookup cannot be started.
        """
        known = self._known.get(host)
        if known is None:
            return await outcome(self._ask(host))
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await outcome(self._ask(host))
        except OSError:  # no answer in time is one of them
            return known[1]

    def prefer(self, host: str, address: str) -> None:
        """Put `address`, which has just accepted a connection, first from now on."""
        with self._lock:
            known = self._known.get(host)
            if known is not None and known[1][0] != address:
                self._known[host] = (known[0], _first(address, known[1]))

    def _keep(self, host: str, found: _Addresses) -> _Addresses:
        """Keep an answer, also one that comes after everybody gave up waiting: otherwise a slow name server would never
        be heard. The caller holds the lock."""
        known = self._known.get(host)
        if known is not None and known[1][0] in found:
            found = _first(known[1][0], found)
        self._known[host] = (time.monotonic(), found)
        return found

    def _ask(self, host: str) -> "Future[_Addresses]":
        with self._lock:
            asking = self._asking.get(host)
            if asking is not None:
                return asking
            asking = self._asking[host] = Future()
            self._waiting.append(host)
            if self._running < _THREADS:
                self._start_worker(host)
        return asking

    def _start_worker(self, host: str) -> None:
        """Start another thread. If that fails, the running ones look the name up later; if none is running, none would,
        so the lookup fails now."""
        self._running += 1
        try:
            start_thread(self._work, "resolver")
        except OSError:
            self._running -= 1
            if self._running == 0:
                self._waiting.remove(host)
                reason = OSError(errno.EAGAIN, "no thread can be started for the lookup")
                self._asking.pop(host).set_exception(reason)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                host = self._waiting.popleft()
            found: _Addresses = ()
            failure: BaseException | None = None
            try:
                found = _look_up(host)
            except BaseException as error:  # noqa: BLE001 - the outermost frame of a thread: a name must not hang
                failure = error
            with self._lock:
                asking = self._asking.pop(host)
                if failure is None:
                    found = self._keep(host, found)
            if failure is not None:
                asking.set_exception(failure)
            else:
                asking.set_result(found)


def _first(address: str, addresses: _Addresses) -> _Addresses:
    return (address, *(one for one in addresses if one != address))


def _look_up(host: str) -> _Addresses:
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except ValueError:  # a label that is too long, or a null byte
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in entries))


def _numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
