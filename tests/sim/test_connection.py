"""The server's protocol without a socket: whatever a client sends, it never raises, and its answers can be read."""

import asyncio
from typing import Any

import pytest
from framing import MemoryTransport, Responses, cuts, damaged
from hypothesis import given
from hypothesis import strategies as st

from garrison.sim.http.connection import Connection, Limits
from garrison.sim.http.messages import Request, Response

POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"
REQUESTS = st.lists(
    st.sampled_from(
        [
            b"GET / HTTP/1.1\r\n\r\n",
            b"HEAD / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            POST + b"Content-Length: 5\r\n\r\nhello",
            POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n",
            POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
            POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
        ]
    ),
    min_size=1,
    max_size=4,
).map(b"".join)


class Host:
    """A server that answers with what it was asked."""

    def __init__(self) -> None:
        self.limits = Limits(head_bytes=2000, body_bytes=1000)
        self.asked: list[Request] = []
        self.body: Any = None

    def app(self, request: Request) -> Response:
        self.asked.append(request)
        return Response(200, self.body() if self.body else request.body, "text/plain")

    def opened(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...
    def abandoned(self) -> None: ...
    def date(self, now: float) -> str:
        return "now"


async def talk(host: Host, pieces: list[bytes]) -> bytes:
    connection = Connection(host, asyncio.get_running_loop())
    transport = MemoryTransport().attach(connection)
    for piece in pieces:
        if not transport.closing:
            connection.data_received(piece)
    for _ in range(20):
        await asyncio.sleep(0)
    transport.lose()
    return bytes(transport.written)


@given(st.data())
def test_any_bytes_are_answered_alike(data: st.DataObject) -> None:
    raw = data.draw(REQUESTS | damaged(REQUESTS) | st.binary(max_size=60))
    pieces = data.draw(cuts(raw))
    whole, cut = Host(), Host()
    asyncio.run(talk(whole, [raw] if raw else []))
    asyncio.run(talk(cut, pieces))
    assert cut.asked == whole.asked


async def trickle(*pieces: bytes) -> Any:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    ("method", "pieces", "body"),
    [("GET", (b"a", b"", b"b"), b"ab"), ("GET", (), b""), ("HEAD", (b"a",), b"")],
    ids=["an empty piece", "no piece", "an answer to HEAD"],
)
async def test_streams_keep_their_framing(method: str, pieces: tuple[bytes, ...], body: bytes) -> None:
    """What follows a stream is read as the next answer, so nothing may be left over, and nothing may be missing."""
    host = Host()
    host.body = lambda: trickle(*pieces)
    raw = await talk(host, [b"%b / HTTP/1.1\r\n\r\n" % method.encode()])
    read = Responses(method).read(raw)
    assert (read.body, read.ended, read.reader.keep_alive()) == (body, True, True)


async def test_blank_lines_keep_no_connection_open() -> None:
    loop = asyncio.get_running_loop()
    connection = Connection(Host(), loop)
    transport = MemoryTransport().attach(connection)
    connection._since = loop.time() - 4
    connection.data_received(b"\r\n")
    connection.expire(loop.time() + 2)
    assert transport.closing


async def test_trailers_do_not_replace_headers() -> None:
    host = Host()
    chunks = b"Authorization: Bearer a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: Bearer b\r\n\r\n"
    await talk(host, [POST + chunks])
    assert host.asked[0].headers["authorization"] == "Bearer a"
