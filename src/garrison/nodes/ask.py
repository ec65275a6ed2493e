"""Asking a node over HTTP."""

import ssl
from typing import Any

import httpx2

from garrison.base.errors import DeniedError, GarrisonError, UnreachableError, UnusableError
from garrison.net.https import http_client
from garrison.nodes.node import Node
from garrison.nodes.watch import NodeAnswer

__all__ = ["HttpAsk"]

_SECONDS = 5.0
_MOST_BYTES = 32 * 2**20


class HttpAsk:
    """`AskNode` over HTTP, with five seconds for each call. Redirects are not followed: the key is for one server."""

    def __init__(self) -> None:
        self._client = http_client(timeout=_SECONDS)

    async def __call__(self, node: Node) -> NodeAnswer:
        version = (await self._get(node, "/api/v1/version")).decode("utf-8", "replace").strip()
        body = _json(await self._get(node, "/api/v1/instances?local=true"), node)
        if not isinstance(body, list) or not all(isinstance(one, dict) and "name" in one for one in body):
            raise UnusableError(f"{node.address} did not list instances: is it a Garrison server?")
        return NodeAnswer(version.removeprefix("Version: ")[:100], tuple(body))

    async def call(self, node: Node, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Make one management call and return its status and JSON. Raises UnreachableError, UnusableError."""
        headers = {"Authorization": f"Bearer {node.key}"} if node.key else {}
        try:
            answer = await self._client.request(method, node.address + path, json=body, headers=headers)
        except httpx2.HTTPError as error:
            raise _no_answer(node, error) from None
        return answer.status_code, _json(answer.content, node)

    async def close(self) -> None:
        await self._client.aclose()

    async def _get(self, node: Node, path: str) -> bytes:
        headers = {"Authorization": f"Bearer {node.key}"} if node.key else {}
        try:
            async with self._client.stream("GET", node.address + path, headers=headers) as answer:
                if answer.status_code in (401, 403):
                    raise DeniedError(f"{node.address} refuses the key of node {node.name}", hint="Give another.")
                if not answer.is_success:
                    raise UnusableError(f"{node.address}{path} answered {answer.status_code}")
                found = bytearray()
                async for piece in answer.aiter_bytes():
                    found += piece
                    if len(found) > _MOST_BYTES:
                        raise UnusableError(f"{node.address}{path} answered more than {_MOST_BYTES} bytes")
                return bytes(found)
        except httpx2.HTTPError as error:
            raise _no_answer(node, error) from None


def _json(content: bytes, node: Node) -> Any:
    import json

    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _not_json(node) from None


def _no_answer(node: Node, error: httpx2.HTTPError) -> GarrisonError:
    """Return the error for an exchange that failed. Something answers where TLS fails or HTTP is not spoken."""
    said = str(error) or type(error).__name__
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return UnusableError(f"{node.address} answers, but TLS fails: {said}")
    broken = isinstance(error, httpx2.RemoteProtocolError) and "disconnected" not in said
    if broken or isinstance(error, httpx2.DecodingError):
        return UnusableError(f"{node.address} answers, but not with HTTP: {said}")
    return UnreachableError(f"{node.address} does not answer: {said}")


def _not_json(node: Node) -> GarrisonError:
    return UnusableError(f"{node.address} did not answer with JSON: is it a Garrison server?")
