"""Requests as they arrive: what is read, what is refused, and that cutting the bytes changes nothing."""

import pytest
from framing import Requests, cuts, damaged
from hypothesis import given
from hypothesis import strategies as st

from garrison.net.http1.limits import Limits

POST = b"POST /v1/x?a=b HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

WHOLE: dict[str, tuple[bytes, list[tuple[bytes, bool]]]] = {
    "no body": (b"GET / HTTP/1.1\r\n\r\n", [(b"", True)]),
    "length": (POST + b"Content-Length: 5\r\n\r\nhello", [(b"hello", True)]),
    "length zero": (POST + b"Content-Length: 0\r\n\r\n", [(b"", True)]),
    "chunks": (CHUNKED + b"3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n", [(b"hello", True)]),
    "chunks with trailers": (CHUNKED + b"2\r\nok\r\n0\r\nAuthorization: x\r\n\r\n", [(b"ok", True)]),
    "capital letters": (POST + b"TRANSFER-ENCODING: Chunked\r\n\r\n0\r\n\r\n", [(b"", True)]),
    "close": (POST + b"Connection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n", [(b"", False)]),
    "http 1.0": (b"GET / HTTP/1.0\r\n\r\n", [(b"", False)]),
    "http 1.0 kept": (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [(b"", True)]),
    "pipelined": (b"GET / HTTP/1.1\r\n\r\n" + POST + b"Content-Length: 1\r\n\r\na", [(b"", True), (b"a", True)]),
    "line ends before": (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", [(b"", True)]),
    "offered h2c": (
        POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
        [(b"ok", False)],
    ),
    "offered h2c with chunks": (
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        [(b"ok", False)],
    ),
}


@pytest.mark.parametrize(("raw", "expected"), WHOLE.values(), ids=WHOLE.keys())
def test_read(raw: bytes, expected: list[tuple[bytes, bool]]) -> None:
    read = Requests().read(raw)
    assert read.refusal is None
    assert [(one.body, one.keep_alive) for one in read.found] == expected
    assert not read.reader.under_way
    assert Requests().read(*(raw[at : at + 1] for at in range(len(raw)))).outcome == read.outcome


REFUSED: dict[str, tuple[bytes, int]] = {
    "length and chunks": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    "the same length twice": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "a list of lengths": (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "a signed length": (POST + b"Content-Length: +5\r\n\r\nhello", 400),
    "a negative length": (POST + b"Content-Length: -5\r\n\r\nhello", 400),
    "a hexadecimal length": (POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    "an empty length": (POST + b"Content-Length:\r\n\r\n", 400),
    "a length of thousands of zeros": (POST + b"Content-Length: " + b"0" * 5000 + b"5\r\n\r\nhello", 400),
    "a length that overflows": (POST + b"Content-Length: 99999999999999999999\r\n\r\nhello", 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: h\n\n", 400),
    "a bare line feed after a value": (b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
    "a bare line feed at the end": (b"GET / HTTP/1.1\r\nHost: h\r\n\n", 400),
    "a bare carriage return": (b"GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", 400),
    "a folded header": (POST + b"X: a\r\n b\r\n\r\n", 400),
    "a header folded with a tab": (POST + b"X: a\r\n\tb\r\n\r\n", 400),
    "space before the first header": (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
    "space before a colon": (POST + b"Content-Length : 5\r\n\r\nhello", 400),
    "space before the colon of a coding": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "a header without a colon": (POST + b"nothing\r\n\r\n", 400),
    "a header without a name": (POST + b": x\r\n\r\n", 400),
    "a null byte in a name": (POST + b"X\0: y\r\n\r\n", 400),
    "a null byte in a value": (POST + b"X: y\0\r\n\r\n", 400),
    "an unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    "a coding before chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "a coding after chunked": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a coding behind a vertical tab": (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a chunk size with a line feed": (CHUNKED + b"5\nhello\r\n0\r\n\r\n", 400),
    "a chunk with a line feed": (CHUNKED + b"5\r\nhello\n0\r\n\r\n", 400),
    "a chunk that is too long": (CHUNKED + b"5\r\nhelloXX0\r\n\r\n", 400),
    "a prefixed chunk size": (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", 400),
    "a padded chunk size": (CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n", 400),
    "a chunk size that overflows": (CHUNKED + b"fffffffffffffffff\r\nhello", 400),
    "a line feed in a chunk extension": (CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n", 400),
    "a length among the trailers": (CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n\r\n", 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "an unknown method": (b"BREW / HTTP/1.1\r\n\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
}


@pytest.mark.parametrize(("raw", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(raw: bytes, status: int) -> None:
    read = Requests().read(raw, b"GET /smuggled HTTP/1.1\r\n\r\n")
    assert read.refusal is not None
    assert (read.refusal.status, read.reader.open) == (status, False)
    assert all(not one.ended for one in read.found)
    assert Requests().read(*(raw[at : at + 1] for at in range(len(raw)))).outcome == Requests().read(raw).outcome


SMALL = Limits(head_bytes=2000, body_bytes=1000)
LARGE: dict[str, tuple[bytes, int]] = {
    "target": (b"GET /" + b"x" * 2001 + b" HTTP/1.1\r\n\r\n", 431),
    "header": (b"GET / HTTP/1.1\r\nX: " + b"x" * 2001 + b"\r\n\r\n", 431),
    "headers": (b"GET / HTTP/1.1\r\n" + b"X: 0123456789\r\n" * 300 + b"\r\n", 431),
    "endless target": (b"GET /" + b"x" * 4000, 431),
    "endless header": (b"GET / HTTP/1.1\r\nX: " + b"x" * 4000, 431),
    "endless name": (b"GET / HTTP/1.1\r\n" + b"x" * 4000, 431),
    "endless blanks": (b"GET / HTTP/1.1\r\nX:" + b" " * 4000, 431),
    "endless line ends": (b"\r\n" * 4000, 431),
    "declared body": (POST + b"Content-Length: 1001\r\n\r\n", 413),
    "body in chunks": (CHUNKED + b"258\r\n" + b"x" * 600 + b"\r\n258\r\n" + b"x" * 600, 413),
    "trailers": (CHUNKED + b"0\r\n" + b"X: 0123456789\r\n" * 300, 431),
    "endless trailer": (CHUNKED + b"0\r\nX: " + b"x" * 4000, 413),
    "endless chunk extension": (CHUNKED + b"1;" + b"x" * 4000, 413),
    "endless chunk extensions": (CHUNKED + b"1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\na\r\n" * 300, 413),
}


@pytest.mark.parametrize(("raw", "status"), LARGE.values(), ids=LARGE.keys())
def test_too_large(raw: bytes, status: int) -> None:
    pieces = [raw[at : at + 100] for at in range(0, len(raw), 100)]
    read = Requests(SMALL).read(*pieces)
    assert read.refusal is not None
    assert read.refusal.status == status


@pytest.mark.parametrize("before", [b"GET / HTTP/1.1\r\n\r\n", POST + b"Content-Length: 1\r\n\r\na"])
@pytest.mark.parametrize("cut", [0, 10, 40, 1000])
def test_a_large_head_behind_another_request(before: bytes, cut: int) -> None:
    raw = before + b"GET / HTTP/1.1\r\n" + b"X: 0123456789\r\n" * 300 + b"\r\n"
    read = Requests(SMALL).read(*filter(None, (raw[:cut], raw[cut:])))
    assert read.refusal is not None
    assert (read.refusal.status, [one.ended for one in read.found]) == (431, [True])


def test_chunks_of_one_byte_are_no_abuse() -> None:
    raw = CHUNKED + b"1\r\na\r\n" * 1000 + b"0\r\n\r\n"
    read = Requests(SMALL).read(*(raw[at : at + 64] for at in range(0, len(raw), 64)))
    assert (read.refusal, read.found[0].body) == (None, b"a" * 1000)


def test_trailers_are_no_headers() -> None:
    """A trailer that counted as a header could bring a key past whoever checked the head."""
    (one,) = Requests().read(CHUNKED + b"0\r\nAuthorization: Bearer x\r\nHost: other\r\n\r\n").found
    assert one.headers == [(b"Host", b"h"), (b"Transfer-Encoding", b"chunked")]


@pytest.mark.parametrize(
    "head", [b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", b"CONNECT h:80 HTTP/1.1\r\n\r\n"]
)
def test_an_upgrade_is_handed_on(head: bytes) -> None:
    read = Requests().read(head + b"\x81\x05hello")
    assert [(one.ended, one.keep_alive) for one in read.found] == [(True, False)]
    assert (read.reader.upgrade, read.reader.rest, read.reader.open) == (True, b"\x81\x05hello", False)


def test_expecting_to_go_on() -> None:
    read = Requests().read(POST + b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
    assert read.reader.expects_continue
    read.read(b"okGET / HTTP/1.1\r\n\r\n")
    assert not read.reader.expects_continue


def test_a_sinks_own_exception_is_not_taken_for_the_clients_fault() -> None:
    class Broken(Requests):
        def request_end(self, keep_alive: bool) -> None:
            raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        Broken().read(b"GET / HTTP/1.1\r\n\r\n")


MESSAGES = st.lists(
    st.sampled_from([raw for raw, _ in [*WHOLE.values(), *REFUSED.values()]]), min_size=1, max_size=3
).map(b"".join)


@given(st.data())
def test_any_cut_gives_the_same(data: st.DataObject) -> None:
    raw = data.draw(MESSAGES | damaged(MESSAGES) | st.binary(max_size=60))
    pieces = data.draw(cuts(raw))
    whole = Requests().read(raw)
    assert Requests().read(*pieces).outcome == whole.outcome
    for one in whole.found[:-1]:
        assert one.ended
