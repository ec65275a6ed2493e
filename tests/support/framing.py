"""Sinks that write down what a reader found, bytes cut at any place, and a transport without a socket."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from garrison.net.http1.known_heads import KnownHeads
from garrison.net.http1.limits import Limits
from garrison.net.http1.requests import Refusal, RequestReader
from garrison.net.http1.responses import ResponseReader


@dataclass
class FoundRequest:
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    http10: bool
    body: bytes = b""
    ended: bool = False
    keep_alive: bool | None = None


class Requests:
    """Everything that one connection sent."""

    def __init__(self, limits: Limits | None = None, heads: KnownHeads | None = None) -> None:
        self.reader = RequestReader(self, limits or Limits(), heads)
        self.found: list[FoundRequest] = []
        self.refusal: Refusal | None = None

    def request_head(self) -> None:
        assert self.refusal is None
        reader = self.reader
        self.found.append(FoundRequest(reader.method, reader.target, list(reader.headers), reader.http10))

    def request_body(self, piece: bytes) -> None:
        assert piece
        self.found[-1].body += piece

    def request_end(self, keep_alive: bool) -> None:
        assert not self.found[-1].ended
        self.found[-1].ended, self.found[-1].keep_alive = True, keep_alive

    def request_refused(self, refusal: Refusal) -> None:
        assert self.refusal is None
        self.refusal = refusal

    def read(self, *pieces: bytes) -> "Requests":
        for piece in pieces:
            self.reader.feed(piece)
        return self

    @property
    def outcome(self) -> Any:
        status = self.refusal.status if self.refusal else None
        return self.found, status, self.reader.open, self.reader.under_way and self.reader.open


class Responses:
    """What came back for one request."""

    def __init__(
        self, method: str = "GET", limit: int = 1000, *, heads: KnownHeads | None = None, **options: Any
    ) -> None:
        self.reader = ResponseReader(self, heads=heads)
        self.interim: list[tuple[int, list[tuple[bytes, bytes]]]] = []
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.ended = False
        self.failure = ""
        self.reader.expect(method, limit, **options)

    def response_interim(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        assert not self.status
        self.interim.append((status, list(headers)))

    def response_head(self) -> None:
        assert not self.status
        self.status, self.headers = self.reader.status, list(self.reader.headers)

    def response_body(self, piece: bytes) -> None:
        assert piece
        assert self.status
        assert not self.ended
        self.body += piece

    def response_end(self, keep_alive: bool) -> None:
        assert not self.ended
        assert not self.failure
        self.ended = True

    def response_failed(self, reason: str) -> None:
        self.failure = self.failure or reason

    def read(self, *pieces: bytes) -> "Responses":
        for piece in pieces:
            self.reader.feed(piece)
        return self

    @property
    def outcome(self) -> Any:
        """Bytes after a complete response make the connection useless, whether they come with it or later."""
        failed = bool(self.failure) and not self.ended
        body = b"" if failed else self.body
        return self.status, self.headers, body, self.ended, failed, self.reader.keep_alive(), self.reader.waiting


def cuts(raw: bytes) -> st.SearchStrategy[list[bytes]]:
    """`raw` in pieces."""
    places = st.lists(st.integers(0, len(raw)), max_size=8).map(sorted)
    return places.map(lambda at: [raw[a:b] for a, b in zip([0, *at], [*at, len(raw)], strict=True) if a < b])


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """A message with some of its bytes changed, dropped, doubled or added."""
    raw = bytearray(draw(messages))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        end = min(len(raw), at + draw(st.integers(0, 4)))
        raw[at:end] = draw(
            st.sampled_from([b"", b"\n", b"\r", b" ", b"\0", b":", b"0", b"\xff", bytes(raw[at:end]) * 2])
        )
    return bytes(raw)


@dataclass
class MemoryTransport(asyncio.Transport):
    """Stands in for a socket: what was written, and whether it is read from."""

    written: bytearray = field(default_factory=bytearray)
    reading: bool = True
    closing: bool = False
    protocol: Any = None

    def attach(self, protocol: Any) -> "MemoryTransport":
        self.protocol = protocol
        protocol.connection_made(self)
        return self

    def lose(self, error: Exception | None = None) -> None:
        """The peer is gone."""
        self.closing = True
        self.protocol.connection_lost(error)

    def write(self, data: Any) -> None:
        if self.closing:
            raise RuntimeError("unable to perform operation on a closed transport; the handler is closed")  # as uvloop
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        assert not self.closing
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.closing
        assert not self.reading
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        assert not self.closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default
