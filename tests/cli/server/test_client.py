"""Calls to what is no server, another one, or one that refuses: an error with its exit code, never a traceback."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import (
    ConflictError,
    DeniedError,
    EngineDiedError,
    GarrisonError,
    InvalidError,
    NotFoundError,
    UnreachableError,
)
from garrison.base.settings import Settings
from garrison.cli.server.client import ServerClient, error_of, part

JSON = {"Content-Type": "application/json"}


def client(url: str, key: str | None = None) -> ServerClient:
    return ServerClient(Settings(server_url=url, server_key=key))


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected", "said"),
    [
        (200, {"Content-Type": "text/html"}, b"<html>", UnreachableError, "is no Garrison server"),
        (200, {}, b"hello", UnreachableError, "no content type"),
        (200, JSON, b"{", UnreachableError, "no JSON"),
        (302, {"Location": "http://127.0.0.1:1/", **JSON}, b"{}", UnreachableError, "302"),
        (404, {"Content-Type": "text/html"}, b"nginx", UnreachableError, "404"),
        (401, JSON, b'{"error": "denied", "details": "the key is unknown", "hint": "h"}', DeniedError, "unknown"),
        (401, JSON, b'{"error": "new-code", "details": "no"}', DeniedError, "no"),
        (404, JSON, b'{"error": "not-found", "details": "none"}', NotFoundError, "none"),
        (412, JSON, b'{"error": "conflict", "details": "old"}', ConflictError, "old"),
        (422, JSON, b'{"error": "invalid", "details": "bad"}', InvalidError, "bad"),
        (500, JSON, b'{"detail": "x"}', UnreachableError, "another form"),
        (500, JSON, b"[]", UnreachableError, "another form"),
    ],
)
def test_answers(strange: Any, status: int, headers: Any, body: bytes, expected: Any, said: str) -> None:
    with client(strange(lambda _method, _path: (status, headers, body))) as there, pytest.raises(expected) as raised:
        there.call("GET", "/instances")
    assert type(raised.value) is expected
    assert said in raised.value.message


def test_an_answer_without_a_bound(strange: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from garrison.cli.server import client as module

    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    url = strange(lambda _method, _path: (200, JSON, b'"' + b"x" * 2000 + b'"'))
    with client(url) as there, pytest.raises(UnreachableError, match="more than 1000 bytes"):
        there.call("GET", "/instances")


def test_an_answer_that_is_cut(strange: Any) -> None:
    url = strange(lambda _method, _path: (200, {**JSON, "Content-Length": "100"}, b'{"a'))
    with client(url) as there, pytest.raises(UnreachableError, match="ended in the middle"):
        there.call("GET", "/instances")


def test_a_stream_that_is_cut(strange: Any) -> None:
    body = b'event: line\ndata: {"text": "a"}\n\nevent: li'
    headers = {"Content-Type": "text/event-stream", "Content-Length": "1000"}
    with client(strange(lambda _method, _path: (200, headers, body))) as there:
        events = there.events("/x")
        assert next(events) == ("line", {"text": "a"})
        with pytest.raises(UnreachableError, match="ended in the middle"):
            next(events)


def test_a_stream_that_is_none(strange: Any) -> None:
    with client(strange(lambda _method, _path: (200, JSON, b"{}"))) as there, pytest.raises(UnreachableError):
        list(there.events("/x"))


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://a", "http://", "http://a:99999", "http://[::1", "x", "0", ":"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InvalidError, match="no address of a server"):
        client(url)


@pytest.mark.parametrize("url", ["8123", ":8123"])
def test_a_port_alone_is_one_of_this_machine(url: str) -> None:
    with client(url) as there:
        assert there.place == "http://127.0.0.1:8123"


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with client(f"http://127.0.0.1:{port}") as there:
        assert not there.answers()
        with pytest.raises(UnreachableError) as raised:
            there.call("GET", "/instances")
    assert str(port) in raised.value.message


def test_the_key_goes_to_the_url_alone(strange: Any, tmp_path: Path) -> None:
    seen = []

    def answer(method: str, path: str) -> Any:
        seen.append((method, path))
        return 200, JSON, json.dumps([]).encode()

    values = Settings(server_url=strange(answer), server_key="sk-1", data_dir=tmp_path)
    with ServerClient(values) as there:
        assert there._client.headers["Authorization"] == "Bearer sk-1"
        assert there.call("GET", f"/instances/{part('a%2f b?c')}") == []
    assert seen == [("GET", "/api/v1/instances/a%252f%20b%3Fc")]
    with ServerClient.of_this_machine(values) as here:
        assert here.local
        assert "Authorization" not in here._client.headers


def test_a_data_directory_with_a_long_name(tmp_path: Path) -> None:
    """The address of a unix socket holds about 100 bytes."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    short = os.open(directory, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{short}/server.sock")
        listener.listen()

        def answer() -> None:
            listener.accept()[0].close()  # the look whether somebody listens
            with listener.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]")

        thread = threading.Thread(target=answer)
        thread.start()
        with ServerClient(Settings(data_dir=directory)) as there:
            assert there.call("GET", "/instances") == []
        thread.join(10)
    os.close(short)


def test_a_data_directory_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none", "n" * 120):
        with ServerClient(Settings(data_dir=tmp_path / name)) as there, pytest.raises(UnreachableError) as raised:
            there.call("GET", "/instances")
        assert "no server runs on this data directory" in raised.value.message
        assert "garrison up" in str(raised.value.hint)


def test_a_reported_failure_keeps_its_class_and_its_details() -> None:
    body = EngineDiedError("it died", hint="h", details={"log_tail": ["x"]}).to_json()
    error = error_of(body["code"], "it died", body)
    assert type(error) is EngineDiedError
    assert (error.hint, error.details) == ("h", {"log_tail": ["x"]})
    assert isinstance(error_of("unheard-of", "m", {}), GarrisonError)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/"])
def test_a_name_that_no_path_can_hold(name: str) -> None:
    with pytest.raises(InvalidError, match="invalid name"):
        part(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user, which only root can become")
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_server_of_another_user_is_not_said_to_be_absent(mode: int) -> None:
    code = """
import os, sys
from pathlib import Path
from garrison.base.settings import Settings
from garrison.cli.server.client import ServerClient
there = ServerClient(Settings(data_dir=Path(sys.argv[1])))
there.answers()  # imports everything
os.setuid(65534)
there.call("GET", "/instances")
"""
    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX) as server:
        directory = Path(name)
        server.bind(str(directory / "server.sock"))
        (directory / "server.sock").chmod(0o600)
        directory.chmod(mode)
        argv = [sys.executable, "-c", code, name]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert "DeniedError" in done.stderr, done.stderr
        assert "is not open to this user" in done.stderr
