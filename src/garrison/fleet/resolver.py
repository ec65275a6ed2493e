"""Names to addresses, so that one name that hangs holds up no other.

The system's resolver blocks a thread for as long as it likes. It gets threads of its own here, which an ending process
does not wait for; a name is asked about once at a time, an answer is kept for a while, and an old answer serves where a
new one does not come.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections import deque
from concurrent.futures import Future

__all__ = ["Resolver"]

_FRESH_SECONDS = 30.0
_PATIENCE_SECONDS = 0.5
"""How long a new answer is waited for where there is an old one."""
_THREADS = 128

_Addresses = tuple[str, ...]


class Resolver:
    """Addresses of names, as text. A numeric host is its own address and costs nothing."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, _Addresses]] = {}
        self._asking: dict[str, Future[_Addresses]] = {}
        self._waiting: deque[str] = deque()
        self._running = 0
        self._lock = threading.Lock()

    def fresh(self, host: str) -> _Addresses | None:
        """Without asking; None where `addresses` has to."""
        known = self._known.get(host)
        if known is None and _numeric(host):
            known = self._known[host] = (float("inf"), (host,))
        return known[1] if known is not None and time.monotonic() - known[0] < _FRESH_SECONDS else None

    async def addresses(self, host: str) -> _Addresses:
        """At least one, the one to try first in front. The caller keeps the deadline.

        Raises:
            socket.gaierror: the name does not resolve.
        """
        asking = self._ask(host)
        known = self._known.get(host)
        if known is None:
            return self._keep(host, await _result(asking))
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return self._keep(host, await _result(asking))
        except (TimeoutError, socket.gaierror):
            return known[1]

    def prefer(self, host: str, address: str) -> None:
        """`address` took a connection: it is tried first from now on."""
        known = self._known.get(host)
        if known is not None and known[1][0] != address:
            self._known[host] = (known[0], (address, *(one for one in known[1] if one != address)))

    def _keep(self, host: str, found: _Addresses) -> _Addresses:
        known = self._known.get(host)
        self._known[host] = (time.monotonic(), found)
        if known is not None and known[1][0] in found:
            self.prefer(host, known[1][0])
        return self._known[host][1]

    def _ask(self, host: str) -> "Future[_Addresses]":
        with self._lock:
            asking = self._asking.get(host)
            if asking is not None:
                return asking
            asking = self._asking[host] = Future()
            self._waiting.append(host)
            if self._running < _THREADS:
                self._running += 1
                threading.Thread(target=self._work, name="resolver", daemon=True).start()
        return asking

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                host = self._waiting.popleft()
                asking = self._asking[host]
            try:
                found = _look_up(host)
            except OSError as error:
                outcome: _Addresses | OSError = error
            else:
                outcome = found
            with self._lock:
                del self._asking[host]
            if isinstance(outcome, OSError):
                asking.set_exception(outcome)
            else:
                asking.set_result(outcome)


async def _result(asking: "Future[_Addresses]") -> _Addresses:
    """Leaving early leaves the lookup to those who still wait for it."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def done(_: "Future[_Addresses]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(wake)

    asking.add_done_callback(done)
    await waiter
    return asking.result()


def _look_up(host: str) -> _Addresses:
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in entries))


def _numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
