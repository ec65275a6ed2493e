"""Instances as targets: their addresses and keys change with each start, and whoever runs them supplies both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from garrison.base.redaction import know_secret
from garrison.fleet.values.target import InstancePlace, TargetSpec
from garrison.net.errors import TransportCause, TransportError
from garrison.net.transport import Connection, Dialer

__all__ = ["InstanceAddress", "InstanceDialer", "NotRunning", "TargetAddresses"]

_FIND_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class InstanceAddress:
    """Where a running instance listens.

    Attributes:
        base_url: as `TargetSpec.base_url`.
        key: sent as a bearer token. It is no reference, since it is another one after each start, and references are
            remembered for a while. It is never stored.
    """

    base_url: str
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NotRunning:
    """Why an instance has no address now, for display: `instance qwen is stopped`.

    Attributes:
        known: whether the caller knows its state; otherwise the instance may be running, and only its server can tell.
    """

    reason: str
    known: bool = True


class TargetAddresses(Protocol):
    async def find(self, place: InstancePlace) -> InstanceAddress | NotRunning:
        """Return where an instance listens now, and its key; or why it cannot be asked.

        An instance that is merely on demand is not started for this.
        """


class InstanceDialer:
    """`Dialer` that connects to instances by their present address, and to other targets as `inner` does.

    An instance that does not run is not asked: the request fails with the cause `not-running`, so that what it serves
    is unknown, never absent.
    """

    def __init__(self, inner: Dialer[TargetSpec], addresses: TargetAddresses) -> None:
        self.inner = inner
        self._addresses = addresses

    def over(self, inner: Dialer[TargetSpec]) -> "InstanceDialer":
        """Return the same over another dialer, such as one that keeps connections."""
        return InstanceDialer(inner, self._addresses)

    def open(self, endpoint: TargetSpec) -> AbstractAsyncContextManager[Connection]:
        """As `Dialer.open`."""
        place = endpoint.instance
        return self.inner.open(endpoint) if place is None else self._open(endpoint, place)

    @asynccontextmanager
    async def _open(self, endpoint: TargetSpec, place: InstancePlace) -> AsyncIterator[Connection]:
        try:
            async with asyncio.timeout(_FIND_SECONDS):
                found = await self._addresses.find(place)
        except TimeoutError:
            detail = f"the address of instance {place.name} was not found within {_FIND_SECONDS:g} s"
            raise TransportError(TransportCause.LOCAL, detail) from None
        if isinstance(found, NotRunning):
            raise TransportError(TransportCause.NOT_RUNNING if found.known else TransportCause.LOCAL, found.reason)
        know_secret(found.key)
        headers = {} if found.key is None else {"Authorization": f"Bearer {found.key}"}
        real = replace(endpoint, base_url=found.base_url, headers=headers)
        async with self.inner.open(real) as connection:
            yield connection
