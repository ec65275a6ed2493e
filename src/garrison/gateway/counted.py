"""Counts the tokens of a request while its answer passes."""

from collections.abc import MutableMapping
from typing import Any

from garrison.gateway.activator import Entry
from garrison.gateway.passthrough import Scope, Send
from garrison.gateway.usage import UsageReader

__all__ = ["CountedSend", "readable"]


class CountedSend:
    """`Send` that tells an entry what the answer uses. An answer that is no success uses nothing.

    Args:
        asked: about how many tokens the request has.
    """

    def __init__(self, send: Send, entry: Entry, asked: int) -> None:
        self._send, self._entry, self._asked = send, entry, asked
        self._reader: UsageReader | None = None
        entry.spend(asked)

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._begin(message)
        elif self._reader is not None:
            self._reader.feed(message.get("body", b""))
            if not message.get("more_body", False):
                self._reader.close()
            self._entry.spend(self._reader.tokens)
        await self._send(message)

    def _begin(self, message: MutableMapping[str, Any]) -> None:
        if not 200 <= message["status"] < 300:
            self._entry.spend(0)
            return
        kind = next((value for name, value in message["headers"] if name == b"content-type"), b"")
        self._reader = UsageReader(kind.decode("latin-1"), self._asked)


def readable(scope: Scope) -> Scope:
    """Return the request with a wish for an answer that is not compressed."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    return {**scope, "headers": [*headers, (b"accept-encoding", b"identity")]}
