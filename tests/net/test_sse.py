"""Server-sent events: what the standard reads out of a stream, however its bytes are cut."""

from collections.abc import AsyncIterator

import pytest
from framing import cuts
from hypothesis import given
from hypothesis import strategies as st

from garrison.net.errors import TransportCause, TransportError
from garrison.net.sse import EventReader, ServerEvent, server_events

STREAMS: dict[str, tuple[bytes, list[ServerEvent]]] = {
    "openai": (b'data: {"a": 1}\n\ndata: [DONE]\n\n', [ServerEvent('{"a": 1}'), ServerEvent("[DONE]")]),
    "anthropic": (b"event: ping\ndata: {}\n\n", [ServerEvent("{}", "ping")]),
    "crlf": (b"data: a\r\n\r\ndata: b\r\n\r\n", [ServerEvent("a"), ServerEvent("b")]),
    "cr": (b"data: a\r\rdata: b\r\r", [ServerEvent("a"), ServerEvent("b")]),
    "several lines": (b"data: a\ndata:b\ndata:  c\n\n", [ServerEvent("a\nb\n c")]),
    "comments": (b": ping\n\n: ping\n\ndata: a\n: more\n\n", [ServerEvent("a")]),
    "no data": (b"event: x\n\nid: 1\n\n\n", []),
    "empty data": (b"data\n\ndata:\n\n", [ServerEvent(""), ServerEvent("")]),
    "id stays": (b"id: 7\ndata: a\n\ndata: b\n\n", [ServerEvent("a", id="7"), ServerEvent("b", id="7")]),
    "unknown fields": (b"retry: 5\nfoo: x\ndatax: y\ndata: a\n\n", [ServerEvent("a")]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [ServerEvent("a")]),
    "characters": ("data: 键\n\n".encode(), [ServerEvent("键")]),
    "no text": (b"data: \xff\n\n", [ServerEvent("\ufffd")]),
    "unfinished": (b"data: a\n\ndata: b\n", [ServerEvent("a")]),
}


@pytest.mark.parametrize(("raw", "events"), STREAMS.values(), ids=STREAMS.keys())
def test_read(raw: bytes, events: list[ServerEvent]) -> None:
    assert EventReader().feed(raw) == events
    reader = EventReader()
    assert [event for at in range(len(raw)) for event in reader.feed(raw[at : at + 1])] == events


LINES = st.lists(
    st.sampled_from(
        [b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"x", b"event", b"id", b"\0", b"\xff", b"\xef\xbb\xbf"]
    ),
    max_size=30,
)


@given(st.data())
def test_any_cut_gives_the_same(data: st.DataObject) -> None:
    raw = b"".join(data.draw(LINES))
    reader = EventReader()
    assert [event for piece in data.draw(cuts(raw)) for event in reader.feed(piece)] == EventReader().feed(raw)


@pytest.mark.parametrize("raw", [b"data: " + b"x" * 200, b"data: x\n" * 30, b"x" * 200, b": x\n" * 40])
@pytest.mark.parametrize("step", [1, 7, 500])
def test_an_event_that_does_not_end(raw: bytes, step: int) -> None:
    reader = EventReader(limit=100)
    with pytest.raises(TransportError) as caught:
        [reader.feed(raw[at : at + step]) for at in range(0, len(raw), step)]
    assert caught.value.cause is TransportCause.MALFORMED


def test_a_stream_may_be_longer_than_an_event() -> None:
    reader = EventReader(limit=100)
    assert sum(len(reader.feed(b"data: x\n\n" * 10)) for _ in range(100)) == 1000


async def test_from_a_stream() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"data: a\n", b"\ndata: b", b"\n\n"):
            yield piece

    assert [event.data async for event in server_events(pieces())] == ["a", "b"]
