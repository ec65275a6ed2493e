"""What HTTP/1.1 framing costs, in the parser alone: both directions, and a chunk of a stream.

    python benchmarks/framing.py [--quick] [--rounds 9] [--json FILE]

The bare side feeds the same bytes to httptools, with callbacks that keep the headers and count the body, as the least
that any user of the parser does. Both run in one process, in turns, without sockets; the medians of the rounds' ratios
are shown.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import httptools

from garrison.net.http1.limits import Limits
from garrison.net.http1.requests import Refusal, RequestReader
from garrison.net.http1.responses import ResponseReader

REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:8000\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n"
    b"User-Agent: bench\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n" + b"y" * 1000
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\ndate: Sat, 28 Nov 2026 23:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: 600\r\n"
    b"content-type: application/json\r\n\r\n" + b"z" * 600
)
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = b"c8\r\n" + b"d" * 200 + b"\r\n"


class Bare:
    """The least that a user of httptools does."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.bytes = 0

    def on_message_begin(self) -> None:
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.bytes += len(body)

    def on_message_complete(self) -> None:
        pass


class Sink:
    """Takes what the readers find, in the same way."""

    def __init__(self) -> None:
        self.bytes = 0

    def request_head(self) -> None:
        pass

    def request_body(self, piece: bytes) -> None:
        self.bytes += len(piece)

    def request_end(self, keep_alive: bool) -> None:
        pass

    def request_refused(self, refusal: Refusal) -> None:
        raise AssertionError(refusal)

    def response_interim(self, status: int, headers: object) -> None: ...

    def response_head(self) -> None:
        pass

    def response_body(self, piece: bytes) -> None:
        self.bytes += len(piece)

    def response_end(self, keep_alive: bool) -> None:
        pass

    def response_failed(self, reason: str) -> None:
        raise AssertionError(reason)


def requests(count: int) -> None:
    reader = RequestReader(Sink(), Limits())
    for _ in range(count):
        reader.feed(REQUEST)


def responses(count: int) -> None:
    reader = ResponseReader(Sink())
    for _ in range(count):
        reader.expect("GET", 10_000)
        reader.feed(RESPONSE)


def chunks(count: int) -> None:
    reader = ResponseReader(Sink())
    reader.expect("GET", 10**12)
    reader.feed(STREAM)
    for _ in range(count):
        reader.feed(CHUNK)


def bare_requests(count: int) -> None:
    parser = httptools.HttpRequestParser(Bare())
    for _ in range(count):
        parser.feed_data(REQUEST)


def bare_responses(count: int) -> None:
    parser = httptools.HttpResponseParser(Bare())
    for _ in range(count):
        parser.feed_data(RESPONSE)


def bare_chunks(count: int) -> None:
    parser = httptools.HttpResponseParser(Bare())
    parser.feed_data(STREAM)
    for _ in range(count):
        parser.feed_data(CHUNK)


KINDS: dict[str, tuple[Callable[[int], None], Callable[[int], None]]] = {
    "a request": (requests, bare_requests),
    "a response": (responses, bare_responses),
    "a chunk": (chunks, bare_chunks),
}


def seconds(work: Callable[[int], None], count: int) -> float:
    begun = time.process_time()
    work(count)
    return (time.process_time() - begun) / count


def main() -> None:
    shell = argparse.ArgumentParser(description="What HTTP/1.1 framing costs.")
    shell.add_argument("--rounds", type=int, default=9)
    shell.add_argument("--quick", action="store_true", help="a smoke test: 2 short rounds")
    shell.add_argument("--json", type=Path, help="write the figures here")
    args = shell.parse_args()
    rounds, count = (2, 1000) if args.quick else (args.rounds, 50_000)
    found = {}
    for name, (ours, bare) in KINDS.items():
        pairs = [(seconds(ours, count), seconds(bare, count)) for _ in range(rounds)]
        cost = statistics.median(a for a, _ in pairs)
        ratio = statistics.median(a / b for a, b in pairs)
        found[name] = {"microseconds": cost * 1e6, "ratio": ratio}
        print(f"{name}: {cost * 1e6:.2f} µs, {ratio:.2f} times bare httptools", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
