"""Keep idle connections for the next request to the same server."""

import asyncio
import ssl
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from garrison.net.exchange import Exchange
from garrison.net.origin import Origin

__all__ = ["IDLE_SECONDS", "Pool", "PoolKey"]

IDLE_SECONDS = 3.0
"""A connection idle for longer is not reused: vLLM closes after 5 s, and a request sent at that moment is lost."""


@dataclass(frozen=True, slots=True)
class PoolKey:
    """What two requests must have in common to share a connection. The API key is not part of it: it is sent with each
    request. A TLS context is: another client certificate or CA is another trust."""

    tls: bool
    host: str
    port: int
    context: ssl.SSLContext | None
    uds: str | None

    @classmethod
    def of(cls, origin: Origin, context: ssl.SSLContext | None, uds: str | None) -> "PoolKey":
        return cls(origin.tls, origin.host, origin.port, context, uds)


class Pool:
    """Idle connections by key, the one used last in front. For one event loop.

    Args:
        per_origin: how many are kept for one key; a connection beyond that is closed.
        total: how many are kept in all.
        idle_seconds: how long one is kept.
        monotonic: seconds from an arbitrary start.
    """

    def __init__(
        self,
        *,
        per_origin: int = 8,
        total: int = 1024,
        idle_seconds: float = IDLE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_origin = per_origin
        self._total = total
        self._idle_seconds = idle_seconds
        self._monotonic = monotonic
        self._idle: dict[Hashable, list[Exchange]] = {}
        self._count = 0
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._count

    def take(self, key: PoolKey) -> Exchange | None:
        """A connection that is likely to be open still; the caller gives it back or closes it."""
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
        """Keep a connection whose last response was read to its end, or close it. It is found again by its `key`."""
        idle = self._idle.get(exchange.key, [])
        if not self._fit(exchange) or len(idle) >= self._per_origin or self._count >= self._total:
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
        return exchange.usable and self._monotonic() - exchange.idle_since < self._idle_seconds

    def _sweep_later(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(self._idle_seconds, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle too long, and forget what the server has closed."""
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
