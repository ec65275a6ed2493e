"""moto's S3 server on loopback, with a proxy before it that counts and misbehaves by script."""

import http.client
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

BUCKET = "models"
KEY = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret"}


@dataclass
class Fault:
    """`kind`: a status ("500"), `cut` (after `at` bytes), `short` (announces and sends `at` bytes), `slow`."""

    where: str
    kind: str
    times: int = 1
    at: int = 0
    seconds: float = 0.0


@dataclass
class S3:
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    bytes_served: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        from moto.server import ThreadedMotoServer

        self.moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.moto.start()
        _, self.moto_port = self.moto.get_host_and_port()
        handler = type("Handler", (_Proxy,), {"s3": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def reset(self) -> None:
        """Empty, but for the bucket; no faults, nothing counted."""
        self._ask("POST", "/moto-api/reset", b"")
        self._put(f"/{BUCKET}", b"")
        self.faults.clear()
        self.requests.clear()
        self.bytes_served = 0

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        self.moto.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def put(self, key: str, content: bytes) -> None:
        self._put(f"/{BUCKET}/{key}", content)

    def gets(self, name: str) -> list[str | None]:
        return [asked for path, asked in self.requests if path.partition("?")[0].endswith(f"/{name}")]

    def _put(self, path: str, content: bytes) -> None:
        status, body = self._ask("PUT", path, content)
        assert status == 200, body

    def _ask(self, method: str, path: str, content: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.moto_port, timeout=30)
        credential = (
            "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"
        )
        connection.request(method, path, content, {"Authorization": credential, "Host": "127.0.0.1"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: S3

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        with self.s3.lock:
            self.s3.requests.append((self.path, asked))
            fault = next((fault for fault in self.s3.faults if fault.times and fault.where in self.path), None)
            if fault is not None:
                fault.times -= 1
        if fault is not None and fault.kind.isdigit():
            self._answer(int(fault.kind), b"<Error><Code>Injected</Code></Error>", {})
            return
        if fault is not None and fault.kind == "slow":
            time.sleep(fault.seconds)
        connection = http.client.HTTPConnection("127.0.0.1", self.s3.moto_port, timeout=60)
        headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
        connection.request("GET", self.path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        kept = {
            key: value
            for key, value in answer.getheaders()
            if key.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server")
        }
        if fault is not None and fault.kind == "cut":
            self._answer(answer.status, body[: fault.at], kept, announced=len(body))
            self.close_connection = True
            return
        if fault is not None and fault.kind == "short":
            body = body[: fault.at]
        self._answer(answer.status, body, kept)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], announced: int | None = None) -> None:
        try:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body) if announced is None else announced))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
            return
        with self.s3.lock:
            self.s3.bytes_served += len(body)

    def log_message(self, format: str, *args: Any) -> None:
        return
