"""A real server for the commands, shared by the tests of a module, and another that answers what a test says."""

import http.server
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from server_lab import ServerLab
from tests_environment import environment


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerLab]:
    """A server that runs. Tests use instances of names of their own."""
    root = tmp_path_factory.mktemp("lab")
    lab = ServerLab(root, environment(root))
    lab.start()
    yield lab
    lab.close()


@pytest.fixture
def here(cli: Any, server: ServerLab, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`here("instance", "list")`: a command on the data directory of that server."""
    monkeypatch.setenv("GARRISON_DATA_DIR", str(server.data_dir))
    monkeypatch.setenv("COLUMNS", "80")
    return cli


@pytest.fixture
def line(server: ServerLab) -> Callable[..., list[str]]:
    """`line("instance", "list")`: argv of a command on that server, for a process of its own."""
    return lambda *words: [sys.executable, "-m", "garrison.cli.main", *words]


Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def strange() -> Iterator[Callable[[Callable[[str, str], Answer]], str]]:
    """`strange(answer)`: the URL of an HTTP server that answers `answer(method, path)`: status, headers, body."""
    running: list[http.server.HTTPServer] = []

    def start(answer: Callable[[str, str], Answer]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                self.rfile.read(int(self.headers.get("Content-Length", 0)))  # or the answer would be cut by a reset
                status, headers, body = answer(self.command, self.path)
                self.send_response_only(status)
                for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            def log_message(self, format: str, *arguments: Any) -> None: ...

        made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(made)
        threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{made.server_address[1]}"

    yield start
    for one in running:
        one.shutdown()
        one.server_close()
