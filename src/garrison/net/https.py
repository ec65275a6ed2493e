"""HTTP clients whose certificate authorities are read when they are first needed."""

import asyncio
import ssl

import httpx2

__all__ = ["http_client"]


def http_client(*, timeout: httpx2.Timeout | float, limits: httpx2.Limits | None = None) -> httpx2.AsyncClient:
    """Return a client without the environment's proxies. HTTPS is verified against the system's authorities.

    Reading those takes about 20 ms, which a server whose engines speak plain HTTP does not need to wait for.
    """
    limits = limits or httpx2.Limits()
    # A context without authorities verifies nothing: HTTPS must go through the other transport.
    plain = httpx2.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), limits=limits)
    secure = _Https(limits)
    return httpx2.AsyncClient(transport=plain, mounts={"https://": secure}, timeout=timeout, trust_env=False)


class _Https(httpx2.AsyncBaseTransport):
    def __init__(self, limits: httpx2.Limits) -> None:
        self._limits = limits
        self._lock = asyncio.Lock()
        self._transport: httpx2.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        async with self._lock:
            if self._transport is None:
                context = await asyncio.to_thread(ssl.create_default_context)
                self._transport = httpx2.AsyncHTTPTransport(verify=context, limits=self._limits)
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()
