"""Which target has a stored response: `/v1/responses` makes one, and later requests name it by its id.

What a worker has seen it tells the others by way of the control process. A response that none of them has seen, such as
one from before the start, is found by asking the targets.
"""

import re
from collections import OrderedDict
from typing import NamedTuple

import msgspec

__all__ = ["IdReader", "StoredAt", "StoredResponses", "previous_response"]

_MOST = 16_384
_FIRST_BYTES = 4096
"""Of an answer in which its id is looked for; engines begin with it."""
_ID = re.compile(rb'"id"[ \t\n\r]*:[ \t\n\r]*"([A-Za-z0-9_-]{1,128})"')


class StoredAt(NamedTuple):
    """Where a response is: the id of a target, and the model as its client named it."""

    target: str
    model: str


class StoredResponses:
    """Responses that were seen last, by id."""

    __slots__ = ("_known", "_most")

    def __init__(self, most: int = _MOST) -> None:
        self._known: OrderedDict[str, StoredAt] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, id: str, at: StoredAt) -> None:
        self._known[id] = at
        self._known.move_to_end(id)
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def find(self, id: str) -> StoredAt | None:
        if (found := self._known.get(id)) is not None:
            self._known.move_to_end(id)
        return found

    def seen(self, id: str, method: bytes, status: int) -> None:
        """Note how a target has answered a request for one: what is not there any more need not be known."""
        if status == 404 or (method == b"DELETE" and status < 300):
            self._known.pop(id, None)


class IdReader:
    """Finds the id of a response at the beginning of the answer that makes it, an event stream or not."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen = b""

    def feed(self, piece: bytes) -> str | None:
        """Return the id once it is there."""
        if len(self._seen) >= _FIRST_BYTES:
            return None
        self._seen += piece[:_FIRST_BYTES]
        found = _ID.search(self._seen)
        if found is None:
            return None
        self._seen = b" " * _FIRST_BYTES  # enough was seen
        return found[1].decode()


class _Fields(msgspec.Struct, frozen=True, gc=False):
    previous_response_id: str | None = None


_decode = msgspec.json.Decoder(_Fields).decode


def previous_response(body: bytes) -> str:
    """Return the id of the response that a request goes on from; empty for none."""
    try:
        return _decode(body).previous_response_id or ""
    except (msgspec.MsgspecError, RecursionError):  # what the engine will refuse
        return ""
