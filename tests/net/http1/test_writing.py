"""Heads and chunks as bytes."""

import pytest
from framing import Requests, Responses
from hypothesis import given
from hypothesis import strategies as st

from garrison.net.http1.writing import LAST_CHUNK, HeaderError, chunk, has_body, header_line, status_line


@pytest.mark.parametrize(("status", "line"), [(200, "HTTP/1.1 200 OK"), (299, "HTTP/1.1 299 ")])
def test_status_line(status: int, line: str) -> None:
    assert status_line(status) == line


@given(st.lists(st.binary(max_size=300)))
def test_chunks_are_read_as_they_were_written(pieces: list[bytes]) -> None:
    """Empty pieces included: an empty chunk would end the body, and the rest would pass for the next message."""
    raw = b"".join(map(chunk, pieces)) + LAST_CHUNK
    read = Responses(limit=100_000).read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + raw)
    assert (read.body, read.ended, read.reader.keep_alive()) == (b"".join(pieces), True, True)


@given(st.text(max_size=5) | st.just("x-a"), st.text(max_size=20))
def test_a_header_line_is_one_header_or_none(name: str, value: str) -> None:
    try:
        line = header_line(name, value).encode("latin-1")
    except (HeaderError, UnicodeEncodeError):
        return
    (one,) = Requests().read(b"GET / HTTP/1.1\r\n%b\r\n\r\n" % line).found
    assert one.headers in ([], [(name.encode(), value.strip(" \t").encode("latin-1"))])


@pytest.mark.parametrize(
    ("name", "value"),
    [("x a", "1"), ("x:1\r\ny", "1"), ("", "1"), ("x-a", "1\r\nx-b: 2"), ("x-a", "1\0"), ("x\n", "1")],
)
def test_refused(name: str, value: str) -> None:
    with pytest.raises(HeaderError) as caught:
        header_line(name, value)
    assert "x-b" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "status", "has"),
    [("GET", 200, True), ("HEAD", 200, False), ("GET", 204, False), ("GET", 304, False), ("GET", 103, False)],
)
def test_who_has_a_body(method: str, status: int, has: bool) -> None:
    assert has_body(method, status) is has
