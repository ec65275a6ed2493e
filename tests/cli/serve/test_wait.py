import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.system


@pytest.fixture
def server() -> Iterator[Callable[..., str]]:
    """`server(503, 503, 200)`: answers with these statuses, the last one for ever."""
    running: list[http.server.ThreadingHTTPServer] = []

    def start(*statuses: int) -> str:
        left = list(statuses)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}).start()
        running.append(found)
        return f"http://127.0.0.1:{found.server_port}"

    yield start
    for found in running:
        found.shutdown()
        found.server_close()


def test_ready(cli: Any, server: Any) -> None:
    url = server(200)
    done = cli("wait", f"{url}/v1")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith(f"{url} is ready (/health answers 200) after ")


def test_changes_are_said_until_it_is_ready(cli: Any, server: Any) -> None:
    url = server(503, 503, 500, 200)
    done = cli("wait", url, "--timeout", "20")
    assert done.code == 0
    assert done.err.splitlines()[:2] == [f"{url}: loading (HTTP 503)", f"{url}: /health answers 500"]


def test_time_is_over(cli: Any, server: Any) -> None:
    done = cli("wait", server(503), "--timeout", "0.1")
    assert done.code == 22
    assert "was not ready within 0.1 s: loading (HTTP 503)" in done.err


def test_nothing_listens(cli: Any) -> None:
    done = cli("wait", "http://127.0.0.1:9", "--timeout", "0")
    assert done.code == 22
    assert "http://127.0.0.1:9 was not ready within 0 s: connection refused\n" in done.err
    assert "→ Start the server, or check its address and port." in done.err


def test_a_name_that_does_not_resolve(cli: Any) -> None:
    done = cli("wait", "http://no-such-host.invalid", "--timeout", "0")
    assert done.code == 22
    assert "the name does not resolve" in done.err
    assert "→ Check the host name, or use the server's IP address." in done.err
    assert "log" not in done.err


def test_quiet(cli: Any, server: Any) -> None:
    assert cli("wait", server(503, 200), "--quiet") == type(cli("wait", server(200), "-q"))(0, "", "")


def test_json(cli: Any, server: Any) -> None:
    url = server(200)
    body = json.loads(cli("wait", url, "--json").out)
    assert body.pop("seconds") >= 0
    assert body == {"schema": 1, "ok": True, "exit_code": 0, "url": url, "reason": "/health answers 200"}


def test_no_address(cli: Any) -> None:
    done = cli("wait", "ftp://x")
    assert done.code == 1
    assert "http://host:port" in done.err
