"""Heads that are known: a reader that skips them finds what one finds that reads each."""

import tracemalloc
from typing import Any

import pytest
from framing import Requests, Responses, cuts, damaged
from hypothesis import given
from hypothesis import strategies as st

from garrison.gateway.worker.heads.head_facts import HeadFacts
from garrison.net.http1.known_heads import KnownHeads, split_head
from garrison.net.http1.limits import HeaderList, Limits

POST = b"POST /v1/chat HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
OK = b"HTTP/1.1 200 OK\r\nserver: x\r\n"

REQUESTS = [
    POST + b"Content-Length: 5\r\n\r\nhello",
    POST + b"content-length: 2\r\n\r\nok",
    POST + b"Content-Length: 0\r\n\r\n",
    POST + b"Content-Length:5\r\n\r\nhello",
    POST + b"CONTENT-LENGTH: 5\r\n\r\nhello",
    POST + b"CONTENT-LENGTH: 0\r\n\r\n",
    POST + b"Content-Length: 5 \r\n\r\nhello",
    POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    POST + b"Content-Length: 5\r\ncontent-length: 0\r\n\r\nhello",
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    POST + b"X-Length: \r\nContent-Length: 5\r\n\r\nhello",
    POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    POST + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
    POST + b"Connection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
    POST + b"Content-Length: 00005\r\n\r\nhello",
    POST + b"Content-Length: 999999999999999\r\n\r\n",
    POST + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na",
    b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"\r\n",
]
RESPONSES = [
    OK + b"Content-Length: 5\r\n\r\nhello",
    OK + b"content-length: 0\r\n\r\n",
    OK + b"CONTENT-LENGTH: 1\r\n\r\na",
    OK + b"Connection: close\r\nContent-Length: 1\r\n\r\na",
    OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    OK + b"\r\nuntil the end",
    OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    OK + b"Content-Length: 1\r\n\r\nab",
    OK + b"Content-Length: 99999\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na",
    b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
]


def without_length(headers: HeaderList) -> HeaderList:
    return [pair for pair in headers if pair[0].lower() != b"content-length"]


def requests(pieces: list[bytes], heads: KnownHeads | None) -> Any:
    read = Requests(Limits(400, 1000), heads).read(*pieces)
    for one in read.found:
        one.headers = without_length(one.headers)
    return read.outcome


def responses(method: str, pieces: list[bytes], heads: KnownHeads | None) -> Any:
    read = Responses(method, heads=heads).read(*pieces)
    read.headers = without_length(read.headers)
    return read.outcome, read.reader.eof()


def warmed(raw: bytes, *, answers: bool = False) -> KnownHeads:
    """Heads that know those of `raw`, as far as that can be."""
    heads = KnownHeads(answers=answers)
    for _ in range(3):
        for at in range(len(raw)):
            if (found := split_head(raw[at:])) is not None:
                heads.note(found[0])
    return heads


@pytest.mark.parametrize("raw", REQUESTS)
def test_a_known_request_is_read_as_an_unknown_one(raw: bytes) -> None:
    for whole in (raw, raw * 3, raw + REQUESTS[0]):
        assert requests([whole], warmed(whole)) == requests([whole], None)


@pytest.mark.parametrize("raw", RESPONSES)
@pytest.mark.parametrize("method", ["POST", "HEAD"])
def test_a_known_answer_is_read_as_an_unknown_one(method: str, raw: bytes) -> None:
    assert responses(method, [raw], warmed(raw, answers=True)) == responses(method, [raw], None)


@given(st.data())
def test_any_requests_cut_anywhere(data: st.DataObject) -> None:
    messages = st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4).map(b"".join)
    raw = data.draw(messages | damaged(messages))
    assert requests(data.draw(cuts(raw)), warmed(raw)) == requests([raw], None)


@given(st.data())
def test_any_answer_cut_anywhere(data: st.DataObject) -> None:
    raw = data.draw(st.sampled_from(RESPONSES) | damaged(st.sampled_from(RESPONSES)))
    method = data.draw(st.sampled_from(["POST", "HEAD"]))
    assert responses(method, data.draw(cuts(raw)), warmed(raw, answers=True)) == responses(method, [raw], None)


def test_the_second_time_a_head_is_known_whatever_its_length() -> None:
    heads = KnownHeads()
    for body, known in ((b"a", False), (b"bb", False), (b"ccc" * 90, True), (b"", True)):
        reader = Requests(Limits(), heads).reader
        found: list[object] = []
        reader._sink.request_head = lambda found=found, reader=reader: found.append(reader.known)  # type: ignore[method-assign, misc]  # what the head was read from
        reader._sink.request_body = lambda _: None  # type: ignore[method-assign]  # nothing is found
        reader._sink.request_end = lambda _: None  # type: ignore[method-assign]
        reader.feed(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert [one is not None for one in found] == [known], body


def noted(heads: KnownHeads, count: int, lines: bytes) -> None:
    for number in range(count):
        for _ in range(2):
            heads.note(b"GET / HTTP/1.1\r\nauthorization: Bearer %d\r\n" % number + lines + b"\r\n")


def openai_head(number: int) -> bytes:
    """What OpenAI's library for Python sends, with a key of its own."""
    lines = [
        "POST /v1/chat/completions HTTP/1.1", "Host: gpu.example.org:8000", "Accept-Encoding: gzip, deflate, br",
        "Connection: keep-alive", "Accept: application/json", "Content-Type: application/json",
        "User-Agent: OpenAI/Python 1.99.9", "X-Stainless-Lang: python", "X-Stainless-Package-Version: 1.99.9",
        "X-Stainless-OS: Linux", "X-Stainless-Arch: x64", "X-Stainless-Runtime: CPython",
        "X-Stainless-Runtime-Version: 3.12.3", "X-Stainless-Async: false", "x-stainless-retry-count: 0",
        "x-stainless-read-timeout: 600", f"Authorization: Bearer {number:064d}", "Content-Length: 0",
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


def test_the_heads_of_ten_thousand_clients_of_openai_are_known_and_take_no_more_than_is_estimated() -> None:
    tracemalloc.start()
    heads = KnownHeads()
    for _ in range(2):
        for number in range(10_000):
            heads.note(openai_head(number))
    for number in range(10_000):
        known = heads.get(openai_head(number))
        assert known is not None, number
        facts = known.derived = HeadFacts(known.method, known.target, known.headers)
        facts.passed_readable(known.headers)
        facts.digest = b"%064d" % number
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < heads._memory < 25 * 2**20


def test_the_oldest_make_room() -> None:
    heads = KnownHeads()
    noted(heads, 20_000, b"host: h\r\n")
    assert len(heads._known) == 16_384
    keys = [b"GET / HTTP/1.1\r\nauthorization: Bearer %d\r\nhost: h\r\n\r\n" % number for number in (0, 3615, 3616)]
    assert [heads.get(key) is not None for key in keys] == [False, False, True]
    large = b"x: " + b"y" * 3800 + b"\r\n"
    noted(heads, 10_000, large)
    assert heads._memory == sum(one.memory for one in heads._known.values() if one is not None)
    assert heads.get(b"GET / HTTP/1.1\r\nauthorization: Bearer 9999\r\n" + large + b"\r\n") is not None


def test_the_heads_of_ten_thousand_clients_are_known() -> None:
    heads = KnownHeads()
    noted(heads, 10_000, b"host: box.example:8080\r\naccept: */*\r\nuser-agent: x/1.2.3\r\n")
    assert len(heads._known) == 10_000


@pytest.mark.parametrize(
    ("count", "lines"), [(20_000, b""), (20_000, b"a:b\r\n" * 60), (8000, b"x: " + b"y" * 3800 + b"\r\n")]
)
def test_what_is_remembered_is_bounded(count: int, lines: bytes) -> None:
    tracemalloc.start()
    heads = KnownHeads()
    noted(heads, count, lines)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(heads._known) <= 16_384
    assert len(heads._seen) <= 16_384
    assert taken < 32 * 2**20


def test_a_large_head_is_not_remembered() -> None:
    heads = KnownHeads()
    large = b"GET / HTTP/1.1\r\nx: " + b"y" * 5000 + b"\r\n\r\n"
    heads.note(large)
    heads.note(large)
    assert heads.get(large) is None
