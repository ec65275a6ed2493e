"""What the simulator's HTTP protocol costs a request, without sockets and without a model.

    python benchmarks/sim_protocol.py [--quick] [--rounds 9] [--json FILE]

One connection is fed whole requests and answers each with a constant. Beside it stands the least that a server on
httptools does: it collects the headers and the body, and writes a constant head and body. Each round measures both; the
median of the rounds is shown, in microseconds and as a ratio.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httptools

from garrison.sim.http.connection import Connection, Limits
from garrison.sim.http.messages import Request, Response
from garrison.sim.http.server import HttpServer

_CLIENT = b"host: localhost:8000\r\naccept: */*\r\nuser-agent: garrison\r\naccept-encoding: identity\r\n"
_BODY = b'{"lora_name": "sql", "lora_path": "/models/adapters/sql"}'
GET = b"GET /v1/models HTTP/1.1\r\n" + _CLIENT + b"\r\n"
POST = (
    b"POST /v1/load_lora_adapter HTTP/1.1\r\n"
    + _CLIENT
    + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
ANSWER = Response(200, b"x" * 540, "application/json")
HEAD = b"HTTP/1.1 200 OK\r\nserver: bare\r\ncontent-length: 540\r\ncontent-type: application/json\r\n\r\n"


class Sink(asyncio.Transport):
    """A transport that counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    def write(self, data: Any) -> None:
        self.written += len(data)

    def is_closing(self) -> bool:
        return False


class Bare:
    """The least that a server on httptools does."""

    def __init__(self, transport: Sink) -> None:
        self._transport = transport
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._headers, self._body = [], []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._transport.write(HEAD + b"x" * 540)


def answer(_request: Request) -> Response:
    return ANSWER


def seconds(feed: Callable[[bytes], None], data: bytes, count: int) -> float:
    """CPU seconds per request."""
    begun = time.process_time()
    for _ in range(count):
        feed(data)
    return (time.process_time() - begun) / count


async def measure(rounds: int, count: int) -> dict[str, dict[str, float]]:
    found = {}
    for name, data in {"GET, four headers": GET, "POST, six headers, 57 bytes": POST}.items():
        transport, bare_transport = Sink(), Sink()
        server = HttpServer(answer, Limits())
        connection = Connection(server, asyncio.get_running_loop())
        connection.connection_made(transport)
        bare = Bare(bare_transport)
        pairs = [
            (seconds(connection.data_received, data, count), seconds(bare.data_received, data, count))
            for _ in range(rounds + 1)
        ][1:]
        connection.connection_lost(None)
        await server.stop()
        assert transport.written > bare_transport.written > rounds * count * 540
        cost = statistics.median(ours for ours, _ in pairs)
        found[name] = {"microseconds": cost * 1e6, "ratio": statistics.median(a / b for a, b in pairs)}
        print(f"{name}: {cost * 1e6:.2f} µs, {found[name]['ratio']:.2f} times bare httptools", flush=True)
    return found


def main() -> None:
    shell = argparse.ArgumentParser(description="What the simulator's HTTP protocol costs a request.")
    shell.add_argument("--rounds", type=int, default=9)
    shell.add_argument("--quick", action="store_true", help="a smoke test: 2 short rounds")
    shell.add_argument("--json", type=Path, help="write the figures here")
    args = shell.parse_args()
    rounds, count = (2, 1000) if args.quick else (args.rounds, 20_000)
    found = asyncio.run(measure(rounds, count))
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
