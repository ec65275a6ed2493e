"""Responses as they arrive: bodies of every kind, what is refused, and that cutting the bytes changes nothing."""

import pytest
from framing import Responses, cuts, damaged
from hypothesis import given
from hypothesis import strategies as st

OK = b"HTTP/1.1 200 OK\r\n"
ONE = OK + b"Content-Length: 1\r\n\r\na"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
OFFER = b"Connection: upgrade\r\nUpgrade: h2c\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

WHOLE: dict[str, tuple[str, bytes, int, bytes, bool]] = {
    "length": ("GET", OK + b"Content-Length: 5\r\n\r\nhello", 200, b"hello", True),
    "no reason": ("GET", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    "chunks": ("GET", CHUNKED + b"3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nX: y\r\n\r\n", 200, b"hello", True),
    "close": ("GET", OK + b"Connection: close\r\nContent-Length: 1\r\n\r\na", 200, b"a", False),
    "http 1.0": ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", 200, b"a", False),
    "no content": ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, b"", True),
    "not modified": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"", True),
    "head with a length": ("HEAD", OK + b"Content-Length: 5000\r\n\r\n", 200, b"", True),
    "head with chunks": ("HEAD", CHUNKED, 200, b"", True),
    "head without a length": ("HEAD", OK + b"\r\n", 200, b"", False),
    "head with a body": ("HEAD", OK + b"Content-Length: 5\r\n\r\nhello", 200, b"", False),
    "interim ones first": (
        "POST",
        b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS + ONE,
        200,
        b"a",
        True,
    ),
    "one more than asked for": ("GET", ONE * 2, 200, b"a", False),
    "garbage behind": ("GET", ONE + b"xyz", 200, b"a", False),
    "a body where none may be": ("GET", b"HTTP/1.1 204 No Content\r\n\r\nhello", 204, b"", False),
    "an offer to switch": ("GET", OK + OFFER + b"Content-Length: 1\r\n\r\na", 200, b"a", True),
}  # fmt: skip


@pytest.mark.parametrize(("method", "raw", "status", "body", "keep"), WHOLE.values(), ids=WHOLE.keys())
def test_read(method: str, raw: bytes, status: int, body: bytes, keep: bool) -> None:
    read = Responses(method).read(raw)
    assert (read.status, read.body, read.ended, read.reader.keep_alive()) == (status, body, True, keep)
    assert Responses(method).read(*(raw[at : at + 1] for at in range(len(raw)))).outcome == read.outcome


REFUSED: dict[str, bytes] = {
    "length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "the same length twice": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a length of thousands of zeros": OK + b"Content-Length: " + b"0" * 5000 + b"5\r\n\r\nhello",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 1\n\na",
    "a folded header": OK + b"X: a\r\n b\r\nContent-Length: 1\r\n\r\na",
    "space before a colon": OK + b"Content-Length : 1\r\n\r\na",
    "a coding other than chunked": OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "a coding before chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a strange status": b"HTTP/1.1 99 OK\r\n\r\n",
    "a switch nobody asked for": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "a bare switch": b"HTTP/1.1 101 Switching\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "a body larger than the limit": OK + b"Content-Length: 1001\r\n\r\n",
    "chunks larger than the limit": CHUNKED + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
    "an endless head": OK + b"X: y\r\n" * 20_000,
    "an endless header": OK + b"X: " + b"y" * 100_000,
    "endless interim responses": b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
    "an endless trailer": CHUNKED + b"0\r\n" + b"X: y\r\n" * 20_000,
    "endless chunk extensions": CHUNKED + b"1;" + b"x" * 300_000,
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_refused(raw: bytes) -> None:
    read = Responses().read(*(raw[at : at + 500] for at in range(0, len(raw), 500)))
    assert read.failure
    assert (read.ended, read.reader.keep_alive(), read.reader.waiting) == (False, False, False)


def test_a_body_that_ends_with_the_connection() -> None:
    read = Responses().read(OK + b"\r\nhel", b"lo")
    assert (read.ended, read.reader.eof()) == (False, True)
    assert (read.body, read.ended, read.reader.keep_alive()) == (b"hello", True, False)


@pytest.mark.parametrize(
    "raw", [b"", b"HTTP/1.1 200", OK + b"Content-Length: 5\r\n\r\nhell", CHUNKED + b"5\r\nhello\r\n"]
)
def test_an_end_in_the_middle(raw: bytes) -> None:
    read = Responses().read(raw)
    assert not read.reader.eof()
    assert not read.ended


def test_interim_responses_and_trailers_are_kept_apart() -> None:
    read = Responses().read(HINTS + CHUNKED + b"1\r\na\r\n0\r\nGrpc-Status: 0\r\n\r\n")
    assert read.headers == [(b"Transfer-Encoding", b"chunked")]
    assert read.interim == [(103, [(b"Link", b"x")])]
    assert read.reader.trailers == [(b"Grpc-Status", b"0")]


def test_a_switch_that_was_asked_for() -> None:
    raw = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02ok"
    read = Responses(switch=True).read(raw)
    assert (read.status, read.ended, read.reader.rest, read.reader.keep_alive()) == (101, True, b"\x81\x02ok", False)


def test_one_reader_for_many_responses() -> None:
    read = Responses()
    for method in ("GET", "HEAD", "GET", "HEAD", "HEAD", "GET"):
        read.status, read.ended = 0, False
        read.reader.expect(method, 10)
        read.read(OK + b"Content-Length: 1\r\n\r\n" + (b"" if method == "HEAD" else b"a"))
        assert (read.ended, read.reader.keep_alive()) == (True, True)
    assert read.body == b"aaa"


def test_bytes_that_belong_to_no_request() -> None:
    read = Responses().read(OK + b"Content-Length: 0\r\n\r\n")
    assert read.reader.keep_alive()
    read.read(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert (read.failure, read.reader.keep_alive()) == ("the server sent bytes that belong to no request", False)


def test_a_sinks_own_exception_is_not_taken_for_the_servers_fault() -> None:
    class Broken(Responses):
        def response_head(self) -> None:
            raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        Broken().read(OK + b"\r\n")


MESSAGES = st.sampled_from([one[1] for one in WHOLE.values()] + [raw for raw in REFUSED.values() if len(raw) < 2000])


@given(st.data())
def test_any_cut_gives_the_same(data: st.DataObject) -> None:
    raw = data.draw(MESSAGES | damaged(MESSAGES) | st.binary(max_size=60))
    method = data.draw(st.sampled_from(["GET", "HEAD", "POST"]))
    pieces = data.draw(cuts(raw))
    whole, cut = Responses(method), Responses(method)
    whole.read(raw)
    cut.read(*pieces)
    assert cut.outcome == whole.outcome
    assert cut.reader.eof() == whole.reader.eof()
    assert cut.outcome == whole.outcome
