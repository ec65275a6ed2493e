"""Heads that peers repeat: what was read of one is not read again.

A client sends the same head with every request of a connection, but for the length of the body; a server does so with
its answers, for a second, until the date changes. What llhttp made of such a head holds for each that has the same
bytes, so the next ones cost a lookup. A head that says anything else about its framing than one plain length is never
known.

Ten thousand clients of OpenAI's library fit, which send 18 headers each: their heads, with what the reader's user makes
of them, take 21 MiB, and 24 of the 32 MiB by the estimate here. What they have in common is kept once.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import httptools

from garrison.net.http1.limits import HeaderList
from garrison.net.http1.writing import has_body

__all__ = ["KnownHead", "KnownHeads", "split_head"]

_MOST_HEADS = 16_384
"""Ten thousand clients have a head each, since each has its own key."""
_MOST_MEMORY = 32 * 2**20
_MOST_ANSWERS = 2048
"""They are of use for a second. A target has one or a few."""
_HEAD_MEMORY = 900
"""Bytes of the objects of one head, whatever is in it, and of those that are made of it."""
_HEADER_MEMORY = 192
"""Bytes of the objects of one header that no other head has, whatever is in it."""
_SHARED_MEMORY = 8
"""Bytes of one that others have."""
_MOST_SHARED = 4096
_MOST_SHARED_BYTES = 256
_SECRET = frozenset((b"authorization", b"x-api-key", b"api-key", b"cookie"))
"""Every client has its own."""
_MOST_BYTES = 4096
"""Of one head; larger ones are rare, and would take much memory."""
_MOST_DIGITS = 15
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,%d})\r\n" % _MOST_DIGITS)
_FRAMING = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"connection"))


class KnownHead:
    """A head as it was read. Messages share it, so nobody changes what is in it.

    Attributes:
        method, target: of a request.
        status: of an answer.
        headers: without Content-Length.
        derived: whatever the reader's user has made of the head; None at first.
        memory: an estimate of the bytes that it takes, its key included.
    """

    __slots__ = ("derived", "headers", "memory", "method", "status", "target")

    def __init__(self, headers: HeaderList, *, method: bytes = b"", target: bytes = b"", status: int = 0) -> None:
        self.method, self.target, self.status, self.headers = method, target, status, headers
        self.derived: object = None
        self.memory = 0


class KnownHeads:
    """The heads that were sent more than once, as many as fit. The oldest make room.

    Args:
        answers: they are of answers that have a length; else of requests.
    """

    __slots__ = ("_known", "_memory", "_most", "_read", "_seen", "_shared", "get")

    def __init__(self, *, answers: bool = False) -> None:
        self._known: OrderedDict[bytes, KnownHead | None] = OrderedDict()
        self._shared: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}
        self._most = _MOST_ANSWERS if answers else _MOST_HEADS
        self._seen: set[int] = set()
        self._memory = 0
        self._read = _answer if answers else _request
        self.get = self._known.get

    def note(self, key: bytes) -> None:
        """One that is not known was sent. The second time it is read for good.

        Args:
            key: of `split_head`.
        """
        if len(key) > _MOST_BYTES or key in self._known:
            return
        mark = hash(key)
        if mark not in self._seen:
            if len(self._seen) >= _MOST_HEADS:
                self._seen.clear()
            self._seen.add(mark)
            return
        head = self._read(key)
        memory = _memory_of(key, None) if head is None else self._share(key, head)
        while self._known and (len(self._known) >= self._most or self._memory + memory > _MOST_MEMORY):
            self._memory -= _memory_of(*self._known.popitem(last=False))
        self._memory += memory
        self._known[key] = head

    def _share(self, key: bytes, head: KnownHead) -> int:
        """Have a head use the headers that others have too; return the bytes that it takes."""
        # What its user makes of it has about the size of the key.
        memory = _HEAD_MEMORY + 2 * len(key)
        headers: HeaderList = []
        for pair in head.headers:
            name, value = pair
            size = len(name) + len(value)
            if (found := self._shared.get(pair)) is not None:
                memory += _SHARED_MEMORY
            else:
                memory += _HEADER_MEMORY + size
                if size <= _MOST_SHARED_BYTES and name.lower() not in _SECRET:
                    if len(self._shared) >= _MOST_SHARED:
                        self._shared.clear()
                    self._shared[pair] = pair
            headers.append(found or pair)
        head.headers, head.memory = headers, memory
        return memory


def _memory_of(key: bytes, head: KnownHead | None) -> int:
    return _HEADER_MEMORY + len(key) if head is None else head.memory


def split_head(data: bytes) -> tuple[bytes, int, int] | None:
    """Return the key of the head that `data` begins with, the size of the head, and the length of its body.

    The key is the head with a zero in place of the length. None where the head is incomplete.
    """
    end = data.find(_END)
    if end < 0:
        return None
    end += 4
    found = _LENGTH.search(data, 0, end)
    if found is None:
        return data[:end], end, 0
    first, last = found.span(1)
    return b"%b0%b" % (data[:first], data[last:end]), end, int(data[first:last])


def _request(key: bytes) -> KnownHead | None:
    """Read a request without a body; None if it says more than that about what follows it."""
    whole = _Whole(httptools.HttpRequestParser)
    if not whole.is_plain(key):
        return None
    return KnownHead(whole.plain_headers(), method=whole.parser.get_method(), target=whole.target)


def _answer(key: bytes) -> KnownHead | None:
    """Read an answer without a body, of a status that has one."""
    whole = _Whole(httptools.HttpResponseParser)
    if not whole.is_plain(key) or not any(name.lower() == b"content-length" for name, _ in whole.headers):
        return None
    status = whole.parser.get_status_code()
    return KnownHead(whole.plain_headers(), status=status) if has_body("", status) else None


_Parser = TypeVar("_Parser", httptools.HttpRequestParser, httptools.HttpResponseParser)


class _Whole(Generic[_Parser]):
    """What httptools finds in one message."""

    def __init__(self, kind: Callable[["_Whole[_Parser]"], _Parser]) -> None:
        self.target = b""
        self.headers: HeaderList = []
        self.parser: _Parser = kind(self)
        self._ends = 0
        self._keep_alive = False

    def is_plain(self, message: bytes) -> bool:
        """Read it, and return whether it says nothing but its length about what follows it."""
        try:
            self.parser.feed_data(message)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return False
        return (
            self._ends == 1
            and self._keep_alive
            and self.parser.get_http_version() == "1.1"
            and all(name.lower() not in _FRAMING or value.lower() == b"keep-alive" for name, value in self.headers)
        )

    def plain_headers(self) -> HeaderList:
        return [pair for pair in self.headers if pair[0].lower() != b"content-length"]

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_message_complete(self) -> None:
        self._ends += 1
        self._keep_alive = self.parser.should_keep_alive()  # which is known only here
