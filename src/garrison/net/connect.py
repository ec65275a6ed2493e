"""Open a connection to an origin: the name, TCP or a unix socket, and TLS, all in one deadline."""

import asyncio
import os
import ssl

from garrison.net.endpoint import Tls
from garrison.net.errors import TransportCause, TransportError, transport_error
from garrison.net.exchange import Exchange
from garrison.net.origin import Origin
from garrison.net.resolver import Resolver
from garrison.net.tls import TlsContexts, TlsFileError

__all__ = ["Connector"]

_SOCKET_PATH_BYTES = 107
_SOCKET_PATH = f"the path of a unix socket has at most {_SOCKET_PATH_BYTES} bytes, and no null byte"


class Connector:
    """Opens connections. Keeps resolved names and TLS contexts.

    asyncio and uvloop turn off Nagle's algorithm on the connections they make; with it, small requests would wait for
    delayed acknowledgements, 40 ms each.
    """

    def __init__(self, resolver: Resolver, contexts: TlsContexts) -> None:
        self._resolver = resolver
        self._contexts = contexts

    async def context(self, tls: Tls, timeout: float) -> ssl.SSLContext:
        """Return the TLS context of a declaration.

        Raises:
            TransportError: `local`: one of its files cannot be used, or could not be read in time.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._contexts.load(tls)
        except TimeoutError:
            detail = f"tls: the certificate files could not be read within {timeout:g} s"
            raise TransportError(TransportCause.LOCAL, detail) from None
        except (TlsFileError, OSError) as error:
            raise TransportError(TransportCause.LOCAL, str(error)) from None

    async def connect(
        self, origin: Origin, context: ssl.SSLContext | None, timeout: float, uds: str | None = None
    ) -> Exchange:
        """Open a connection.

        Args:
            context: None for plain HTTP.
            timeout: seconds in total, shared by all addresses of the name.
            uds: path of a unix socket to use instead of the origin's address.

        Raises:
            TransportError: no connection could be opened.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        if uds is not None:
            if len(os.fsencode(uds)) > _SOCKET_PATH_BYTES or "\0" in uds:  # uvloop would cut it and try what is left
                raise TransportError(TransportCause.LOCAL, _SOCKET_PATH)
            return await self._open(uds, True, origin, context, deadline, 0)
        addresses = self._resolver.fresh(origin.host) or await self._resolve(origin.host, timeout)
        for at, address in enumerate(addresses, 1):
            try:
                exchange = await self._open(address, False, origin, context, deadline, len(addresses) - at)
            except TransportError:
                if at == len(addresses):
                    raise
            else:
                self._resolver.prefer(origin.host, address)
                return exchange
        raise AssertionError("a name that resolves has an address")

    async def _resolve(self, host: str, timeout: float) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(timeout):
                return await self._resolver.addresses(host)
        except TimeoutError:
            detail = f"the name did not resolve within {timeout:g} s"
            raise TransportError(TransportCause.DNS, detail) from None
        except OSError as error:
            raise transport_error(error, sent=False) from None

    async def _open(
        self,
        address: str,
        unix: bool,
        origin: Origin,
        context: ssl.SSLContext | None,
        deadline: float,
        others: int,
    ) -> Exchange:
        """Connect within a share of the remaining time, since `others` addresses may be tried after this one."""
        loop = asyncio.get_running_loop()
        share = (deadline - loop.time()) / (others + 1)
        name = origin.host if context else None
        try:
            async with asyncio.timeout(share):
                if unix:
                    _, exchange = await loop.create_unix_connection(
                        Exchange, address, ssl=context, server_hostname=name
                    )
                else:
                    _, exchange = await loop.create_connection(
                        Exchange, address, origin.port, ssl=context, server_hostname=name
                    )
                return exchange
        except TimeoutError:
            raise TransportError(TransportCause.TIMEOUT, f"no connection within {share:.3g} s") from None
        except OSError as error:
            raise transport_error(error, sent=False) from None
