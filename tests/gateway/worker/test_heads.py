"""Heads on their way up and down, as tables."""

from dataclasses import dataclass, field

import pytest

from garrison.gateway.worker.heads.heads import (
    DROPPED_TO_COUNT,
    DROPPED_UP,
    KEPT_FOR_CONTROL,
    answer_head,
    framed,
    request_head,
)
from garrison.net.http1.known_heads import KnownHead

Headers = list[tuple[bytes, bytes]]


@dataclass
class Asked:
    """What `heads` reads of a request."""

    method: bytes = b"POST"
    headers: Headers = field(default_factory=list)
    http10: bool = False


@dataclass
class Answered:
    """What `heads` reads of an answer."""

    status: int = 200
    headers: Headers = field(default_factory=list)
    known: KnownHead | None = None
    length: int = 0


UP: dict[str, tuple[Headers, frozenset[bytes], bytes]] = {
    "nothing": ([], DROPPED_UP, b""),
    "others stay, in order and as written": (
        [(b"X-B", b"1"), (b"x-a", b""), (b"X-B", b"2\xe9")], DROPPED_UP, b"X-B: 1\r\nx-a: \r\nX-B: 2\xe9\r\n",
    ),
    "the caller's secrets": (
        [(b"Authorization", b"k"), (b"X-API-KEY", b"k"), (b"cookie", b"c"), (b"A", b"b")], DROPPED_UP, b"A: b\r\n",
    ),
    "the control process has them": (
        [(b"Authorization", b"k"), (b"Cookie", b"c"), (b"Host", b"h"), (b"X-Forwarded-For", b"f")], KEPT_FOR_CONTROL,
        b"Authorization: k\r\nCookie: c\r\nHost: h\r\n",
    ),
    "framing": (
        [(b"Content-Length", b"9"), (b"Transfer-Encoding", b"chunked"), (b"Expect", b"100-continue")], DROPPED_UP, b"",
    ),
    "named by Connection": (
        [(b"connection", b"X-A ,close, x-b"), (b"X-a", b"1"), (b"X-B", b"1"), (b"X-C", b"1")], DROPPED_UP,
        b"X-C: 1\r\n",
    ),
    "named by the second Connection": (
        [(b"Connection", b"close"), (b"Connection", b"x-a"), (b"X-A", b"1")], DROPPED_UP, b"",
    ),
    "a common Connection names nothing": ([(b"Connection", b" Keep-Alive "), (b"Upgrade-X", b"1")], DROPPED_UP,
                                          b"Upgrade-X: 1\r\n"),
    "Host cannot be named": ([(b"Connection", b"host"), (b"Host", b"h")], KEPT_FOR_CONTROL, b"Host: h\r\n"),
    "codings, unless tokens are counted": ([(b"Accept-Encoding", b"gzip")], DROPPED_UP, b"Accept-Encoding: gzip\r\n"),
    "no codings where tokens are counted": ([(b"Accept-Encoding", b"gzip")], DROPPED_TO_COUNT, b""),
}  # fmt: skip


@pytest.mark.parametrize("name", UP)
def test_request_headers(name: str) -> None:
    headers, dropped, expected = UP[name]
    found = request_head(Asked(headers=headers), b"/p", b"own: 1\r\n", 3, dropped)
    assert found == b"POST /p HTTP/1.1\r\nown: 1\r\n" + expected + b"content-length: 3\r\n\r\n"


LENGTHS: dict[tuple[bytes, int | None], bytes] = {
    (b"POST", 3): b"content-length: 3\r\n",
    (b"POST", 0): b"content-length: 0\r\n",
    (b"PUT", 0): b"content-length: 0\r\n",
    (b"PATCH", 0): b"content-length: 0\r\n",
    (b"GET", 0): b"",
    (b"DELETE", 0): b"",
    (b"GET", 2): b"content-length: 2\r\n",
    (b"POST", None): b"transfer-encoding: chunked\r\n",
}


@pytest.mark.parametrize(("case", "expected"), LENGTHS.items())
def test_request_lengths(case: tuple[bytes, int | None], expected: bytes) -> None:
    method, length = case
    assert (
        request_head(Asked(method), b"/", b"", length, DROPPED_UP) == method + b" / HTTP/1.1\r\n" + expected + b"\r\n"
    )


DOWN: dict[str, tuple[Headers, bytes]] = {
    "others stay": ([(b"Set-Cookie", b"a"), (b"set-cookie", b"b")], b"Set-Cookie: a\r\nset-cookie: b\r\n"),
    "hop by hop": (
        [(b"Connection", b"x-a"), (b"X-A", b"1"), (b"Keep-Alive", b"1"), (b"Transfer-Encoding", b"chunked"),
         (b"Upgrade", b"h2c"), (b"Proxy-Authenticate", b"x"), (b"A", b"b")], b"A: b\r\n",
    ),
    "Trailer stays": ([(b"Trailer", b"X-Sum")], b"Trailer: X-Sum\r\n"),
    "a length cannot be named": ([(b"Connection", b"content-length"), (b"Content-Length", b"1")],
                                 b"Content-Length: 1\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOWN)
def test_answer_headers(name: str) -> None:
    headers, expected = DOWN[name]
    assert answer_head(200, headers, b"own: 1\r\n") == b"HTTP/1.1 200 OK\r\n" + expected + b"own: 1\r\n\r\n"


def test_a_status_without_a_name() -> None:
    assert answer_head(299, [], b"").startswith(b"HTTP/1.1 299 \r\n")


CHUNKED, CLOSE, KEPT = b"transfer-encoding: chunked\r\n", b"connection: close\r\n", b"connection: keep-alive\r\n"
# method, HTTP/1.0, status, sized, kept: what is added, and whether the body is sent in chunks
FRAMED: list[tuple[tuple[bytes, bool, int, bool, bool], tuple[bytes, bool]]] = [
    ((b"POST", False, 200, True, True), (b"", False)),
    ((b"POST", False, 200, False, True), (CHUNKED, True)),
    ((b"POST", False, 200, True, False), (CLOSE, False)),
    ((b"POST", False, 200, False, False), (CHUNKED + CLOSE, True)),
    ((b"POST", True, 200, True, True), (KEPT, False)),
    ((b"POST", True, 200, False, True), (CLOSE, False)),
    ((b"POST", True, 200, True, False), (CLOSE, False)),
    ((b"HEAD", False, 200, False, True), (b"", False)),
    ((b"HEAD", False, 200, True, True), (b"", False)),
    ((b"POST", False, 204, False, True), (b"", False)),
    ((b"POST", False, 304, False, True), (b"", False)),
    ((b"POST", True, 204, False, True), (KEPT, False)),
]


@pytest.mark.parametrize("given", [b"", b"X-Request-Id: 7\r\n"])
def test_an_answer_whose_head_is_known(given: bytes) -> None:
    headers = [(b"A", b"b"), (b"Connection", b"keep-alive"), *([(b"X-Request-Id", b"7")] if given else [])]
    known = KnownHead(headers, status=200)
    for length in (3, 4):
        head, chunked = framed(Asked(), Answered(known=known, length=length), True, b"5")
        made = b"" if given else b"x-request-id: 5\r\n"
        assert head == b"HTTP/1.1 200 OK\r\nA: b\r\n%bcontent-length: %d\r\n%b\r\n" % (given, length, made)
        assert not chunked


@pytest.mark.parametrize(("case", "expected"), FRAMED)
def test_framed(case: tuple[bytes, bool, int, bool, bool], expected: tuple[bytes, bool]) -> None:
    method, http10, status, sized, keep = case
    headers = [(b"Content-LENGTH", b"5")] if sized else []
    head, chunked = framed(Asked(method, http10=http10), Answered(status, headers), keep)
    added, _, rest = head.partition(b"\r\n")[2].removeprefix(b"Content-LENGTH: 5\r\n").rpartition(b"\r\n")
    assert (added, rest, chunked) == (expected[0], b"", expected[1])
