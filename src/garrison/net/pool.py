"""Keeps idle connections for the next request to the same server."""

import asyncio
import math
import ssl
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from garrison.net.exchange import Exchange
from garrison.net.origin import Origin

__all__ = ["IDLE_SECONDS", "Pool", "PoolKey"]

IDLE_SECONDS = 3.0
"""A connection idle for longer is not reused: vLLM closes it after 5 s, and a request sent at that moment is lost."""


@dataclass(frozen=True, slots=True)
class PoolKey:
    """What two requests must have in common to share a connection.

    The API key is not part of it, since it is sent with each request. The TLS context is: another client certificate or
    another CA means another trust.

    Attributes:
        sender: a digest of the base URL and the headers, secrets included, for a pool that does not let requests with
            different ones share a connection; else empty.
    """

    tls: bool
    host: str
    port: int
    context: ssl.SSLContext | None
    uds: str | None
    sender: bytes = b""

    @classmethod
    def of(cls, origin: Origin, context: ssl.SSLContext | None, uds: str | None, sender: bytes = b"") -> "PoolKey":
        return cls(origin.tls, origin.host, origin.port, context, uds, sender)


class Pool:
    """Idle connections by key, the most recently used first. For one event loop.

    Args:
        per_key: how many are kept for one key; a connection beyond that is closed.
        total: how many are kept in all.
        idle_seconds: how long one is kept.
        age_seconds: how long after it was opened one may be used again. It bounds for how long a server is reached
            although its name or its certificate has changed.
        by_sender: whether the base URL and all headers, secrets included, must be the same for a connection to be
            shared. Then nothing that a peer tied to a connection outlives a change of settings or of a secret.
        monotonic: seconds from an arbitrary start.
    """

    def __init__(
        self,
        *,
        per_key: int = 8,
        total: int = 1024,
        idle_seconds: float = IDLE_SECONDS,
        age_seconds: float = math.inf,
        by_sender: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.idle_seconds = idle_seconds
        self.by_sender = by_sender
        self._per_key = per_key
        self._total = total
        self._age_seconds = age_seconds
        self._monotonic = monotonic
        self._idle: dict[Hashable, list[Exchange]] = {}
        self._count = 0
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._count

    def take(self, key: PoolKey) -> Exchange | None:
        """Take out a connection that is probably still open; the caller gives it back or closes it."""
        idle = self._idle.get(key)
        if idle is None:
            return None
        found: Exchange | None = None
        while idle and found is None:
            self._count -= 1
            exchange = idle.pop()
            if self._fit(exchange):
                found = exchange
            else:
                exchange.close()
        if not idle:
            del self._idle[key]
        return found

    def give(self, exchange: Exchange) -> None:
        """Keep a connection whose last response was read to its end, under its `key`; close it if it cannot be kept."""
        idle = self._idle.get(exchange.key, [])
        if not self._fit(exchange) or len(idle) >= self._per_key or self._count >= self._total:
            exchange.close()
            return
        idle.append(exchange)
        self._idle[exchange.key] = idle
        self._count += 1
        if self._sweeper is None:
            self._sweep_later()

    def close(self) -> None:
        """Close all of them."""
        for idle in self._idle.values():
            for exchange in idle:
                exchange.close()
        self._idle.clear()
        self._count = 0
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _fit(self, exchange: Exchange) -> bool:
        now = self._monotonic()
        young = now - exchange.opened_at < self._age_seconds
        return exchange.usable and young and now - exchange.idle_since < self.idle_seconds

    def _sweep_later(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(self.idle_seconds, self._sweep)

    def _sweep(self) -> None:
        """Close connections that have been idle too long, and drop those that the server has closed."""
        self._sweeper = None
        for key, idle in list(self._idle.items()):
            fit = [exchange for exchange in idle if self._fit(exchange)]
            for exchange in idle:
                if exchange not in fit:
                    exchange.close()
            self._count -= len(idle) - len(fit)
            if fit:
                self._idle[key] = fit
            else:
                del self._idle[key]
        if self._idle:
            self._sweep_later()
