"""The client's protocol without a socket: whatever a server sends, a request ends, once, and with an answer or an
error."""

import asyncio
from typing import Any

import pytest
from framing import MemoryTransport, cuts, damaged
from hypothesis import given
from hypothesis import strategies as st

from garrison.net.errors import TransportCause, TransportError
from garrison.net.exchange import Exchange

OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = st.sampled_from(
    [
        OK + b"Content-Length: 5\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n",
        OK + b"\r\nhello",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
        OK + b"Content-Length: 100000\r\n\r\n",
    ]
)


def asked(*, method: str = "GET", limit: int = 1000, whole: bool = True) -> tuple[Exchange, MemoryTransport]:
    exchange = Exchange()
    transport = MemoryTransport().attach(exchange)
    exchange.start(b"request", method=method, limit=limit, timeout=60, whole=whole)
    return exchange, transport


def deliver(exchange: Exchange, transport: MemoryTransport, pieces: list[bytes]) -> None:
    for piece in pieces:
        if not transport.closing:
            exchange.data_received(piece)
    if not transport.closing:
        exchange.eof_received()
    transport.lose()


async def read(exchange: Exchange, whole: bool) -> Any:
    try:
        async with asyncio.timeout(5):
            if whole:
                await exchange.whole()
                return exchange.status, exchange.body()
            await exchange.head()
            body = b""
            while piece := await exchange.piece():
                body += piece
            return exchange.status, body
    except TransportError as error:
        return error.cause


@given(st.data())
def test_any_bytes_end_a_request(data: st.DataObject) -> None:
    raw = data.draw(ANSWERS | damaged(ANSWERS) | st.binary(max_size=60))
    pieces = data.draw(cuts(raw))
    method = data.draw(st.sampled_from(["GET", "HEAD"]))

    async def main() -> None:
        found = []
        for whole, given_pieces in ((True, [raw] if raw else []), (True, pieces), (False, pieces)):
            exchange, transport = asked(method=method, whole=whole)
            reading = asyncio.create_task(read(exchange, whole))
            await asyncio.sleep(0)
            deliver(exchange, transport, given_pieces)
            found.append(await reading)
            assert exchange._timer is None
            assert not exchange.usable
        assert found[0] == found[1] == found[2]

    asyncio.run(main())


async def test_an_answer_survives_what_comes_after_it() -> None:
    """The bytes make the connection useless and the answer no worse, though its reader has not run in between."""
    for whole in (True, False):
        exchange, transport = asked(whole=whole)
        exchange.data_received(OK + b"Content-Length: 2\r\n\r\nok")
        exchange.data_received(b"more")
        transport.lose(ConnectionResetError(104, "x"))
        assert await read(exchange, whole) == (200, b"ok")
        assert not exchange.usable


@pytest.mark.parametrize("whole", [True, False])
async def test_closing_ends_the_wait(whole: bool) -> None:
    """Also of a body that would end with the connection: an end on this side is not its end."""
    exchange, transport = asked(whole=whole)
    exchange.data_received(OK + b"\r\nhel")
    reading = asyncio.create_task(read(exchange, whole))
    await asyncio.sleep(0)
    exchange.close()
    transport.lose()
    assert await reading is TransportCause.RESET


async def test_the_deadline_is_kept_without_a_reader() -> None:
    exchange = Exchange()
    transport = MemoryTransport().attach(exchange)
    exchange.start(b"request", method="GET", limit=10, timeout=0.01, whole=False)
    async with asyncio.timeout(5):
        while not transport.closing:
            await asyncio.sleep(0.01)
    assert await read(exchange, False) is TransportCause.TIMEOUT


async def test_a_stream_is_read_no_further_than_it_is_consumed() -> None:
    exchange, transport = asked(limit=10**9, whole=False)
    exchange.data_received(OK + b"Content-Length: 300000\r\n\r\n")
    exchange.data_received(b"x" * 100_000)
    assert not transport.reading
    assert await exchange.piece() == b"x" * 100_000
    assert transport.reading
    exchange.data_received(b"x" * 200_000)
    assert transport.reading  # it is complete: a server that closes must be noticed
    assert await exchange.piece() == b"x" * 200_000
    assert await exchange.piece() == b""
    assert exchange.usable


async def test_a_whole_answer_is_not_held_back() -> None:
    exchange, transport = asked(limit=10**9)
    exchange.data_received(OK + b"Content-Length: 300000\r\n\r\n")
    for _ in range(3):
        assert transport.reading
        exchange.data_received(b"x" * 100_000)
    assert await read(exchange, True) == (200, b"x" * 300_000)


async def test_nothing_is_sent_on_a_connection_that_is_gone() -> None:
    exchange = Exchange()
    MemoryTransport().attach(exchange).lose()
    with pytest.raises(TransportError) as caught:
        exchange.start(b"request", method="GET", limit=10, timeout=1, whole=True)
    assert (caught.value.cause, caught.value.sent) == (TransportCause.RESET, False)


async def test_nothing_is_sent_on_a_connection_that_is_being_closed() -> None:
    """The loop reports the end of a connection one iteration after it has begun to close it."""
    exchange = Exchange()
    transport = MemoryTransport().attach(exchange)
    transport.close()
    with pytest.raises(TransportError) as caught:
        exchange.start(b"request", method="POST", limit=1000, timeout=60, whole=True)
    assert (caught.value.cause, caught.value.sent) == (TransportCause.RESET, False)
