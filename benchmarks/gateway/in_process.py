"""What a warm request and a chunk of a stream cost a worker of the gateway, in its own code: one process, no sockets.

    python benchmarks/gateway/in_process.py [--rounds 200] [--no-usage] [--no-activity] [--captures] [--traces]

The same bytes go in at both ends again and again; what is written goes nowhere. The least of all rounds is the figure,
since whatever else the machine does can only add to it. To compare two versions, run each in turn with PYTHONPATH.
"""

import argparse
import asyncio
import time
from typing import Any

import uvloop

from garrison.base.clock import SystemClock
from garrison.gateway.link import messages
from garrison.gateway.worker.connections.inbound import Inbound
from garrison.gateway.worker.connections.outbound import Outbound
from garrison.gateway.worker.plane import Plane

COUNT = 400
TEXT = b"x" * 900
ANSWER = b'{"choices":[{"message":{"content":"%b"}}],"usage":{"prompt_tokens":7,"completion_tokens":3}}' % TEXT[:480]
EVENT = b'data: {"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'


class Nowhere(asyncio.Transport):
    """Takes what is written."""

    def write(self, data: object) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def close(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1) if name == "peername" else None


class Bench:
    """A plane with one warm target, and one connection at either end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.plane = Plane(SystemClock(), asyncio.get_running_loop())
        told: dict[str, Any] = {} if options.no_usage else {"stream_usage": True}
        told |= {} if options.no_activity else {"report_requests": True}
        told |= {"captures": 100, "capture_bytes": 16 * 1024} if options.captures else {}
        told |= {"traces": 1.0} if options.traces else {}
        self.plane.set_settings(messages.Settings(host="", port=0, control_socket="/", open_inference=True, **told))
        self.plane.callers.set_keys(messages.Keys(secret=b"0" * 32, config_keys=(), revision=1, rows=[]))
        target = messages.TargetValue(id="target:m", url="unix:/nowhere", key="secret")
        route = messages.RouteValue(name="m", targets=(target.id,))
        self.plane.apply(messages.Tables(version=1, whole=True, targets=[target], routes=[route]))
        self.target = Outbound(self.plane.table.targets[target.id])
        self.target.connection_made(Nowhere())
        self.target.rest()
        self.client = Inbound(self.plane)
        self.client.connection_made(Nowhere())

    def requests(self) -> float:
        """Return seconds per request."""
        body = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % TEXT
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)
        asked, answer = request(body), head + ANSWER
        began = time.perf_counter()
        for _ in range(COUNT):
            self.client.data_received(asked)
            self.target.data_received(answer)
        seconds = time.perf_counter() - began
        self.plane.stats.take()
        self.plane.finished.take()
        return seconds / COUNT

    def chunks(self) -> float:
        """Return seconds per chunk of a stream."""
        self.client.data_received(request(b'{"model":"m","stream":true,"messages":[{"content":"%b"}]}' % TEXT))
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.target.data_received(head)
        chunk = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
        began = time.perf_counter()
        for _ in range(COUNT):
            self.target.data_received(chunk)
        seconds = time.perf_counter() - began
        self.target.data_received(b"0\r\n\r\n")
        return seconds / COUNT


def request(body: bytes) -> bytes:
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"Host: gateway", b"Content-Type: application/json",
             b"Authorization: Bearer key", b"Accept: */*", b"Content-Length: %d" % len(body)]  # fmt: skip
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    for name in ("no-usage", "no-activity", "captures", "traces"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    bench = Bench(options)
    rounds = [(bench.requests(), bench.chunks()) for _ in range(options.rounds)]
    a_request, a_chunk = (min(one) * 1e6 for one in zip(*rounds, strict=True))
    print(f"a request {a_request:.1f} µs, a chunk {a_chunk:.2f} µs")


if __name__ == "__main__":
    uvloop.run(main())
