"""The load: wrk for requests, `streams.c` for streams, connections that do nothing, and the upstream of them all.

Everything here runs on the load's core; what is measured of the gateway is read from /proc meanwhile.
"""

import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["COMPILER", "Values", "body", "compiled", "idle", "post", "requests", "streams", "upstream"]

HERE = Path(__file__).resolve().parent
PATH = "/v1/chat/completions"
COMPILER = "cc"
_TEXT = 'Garrison keeps inference nodes serving exactly what was declared.\nIt says "why" where it cannot.\n'

Values = dict[str, float]
Mark = Callable[[str], None]  # called with "begin", "half" and "end" of what is measured


def compiled(name: str, cache: Path) -> Path:
    """The program `name`.c, compiled when it is not there or older than its source."""
    source, program = HERE / f"{name}.c", cache / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        cache.mkdir(parents=True, exist_ok=True)
        words = [COMPILER, "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr}")
    return program


@contextmanager
def upstream(program: Path) -> Iterator[int]:
    """Runs upstream.c; its port."""
    process = subprocess.Popen([str(program)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        word, _space, port = process.stdout.readline().partition(" ")
        if word != "listening":
            raise SystemExit(f"{program} said {word!r} instead of its port")
        yield int(port)
    finally:
        process.kill()
        process.wait()


def body(size: int) -> bytes:
    """A chat completion of about `size` bytes, its fields in the order in which OpenAI's client sends them."""

    def written(text: str) -> bytes:
        fields = {"messages": [{"role": "user", "content": text}], "model": "bench", "max_tokens": 64}
        return json.dumps(fields, separators=(",", ":")).encode()

    room = size - len(written(""))
    text = (_TEXT * (room // len(_TEXT) + 1))[:room]
    return written(text[: room - (len(written(text)) - size)])


def post(port: int, data: bytes, key: str, timeout: float = 2.0) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", PATH, data, _headers(key))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _headers(key: str) -> dict[str, str]:
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def requests(
    port: int,
    data: Path,
    connections: int,
    seconds: int,
    mark: Mark,
    *,
    key: str = "",
    several: tuple[Path, Path] | None = None,
) -> Values:
    """Requests per second and times in microseconds, with the body in the file `data`.

    `several` are files of model names and of keys, one a line, to go round.
    """
    wrk = shutil.which("wrk")
    assert wrk is not None  # checked when the run begins
    url = f"http://127.0.0.1:{port}{PATH}"
    words = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    words += ["-s", str(HERE / "requests.lua"), url, "--", str(data), key]
    if several is not None:
        words += [str(path) for path in several]
    mark("begin")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        time.sleep(seconds / 2)
        mark("half")
        said, _nothing = process.communicate()
    mark("end")
    line = next((line for line in said.splitlines() if line.startswith("FIGURES ")), None)
    if line is None:
        raise SystemExit(f"{' '.join(words)} gave no figures:\n{said}")
    found: dict[str, float] = json.loads(line.removeprefix("FIGURES "))
    return {
        "count": found["requests"],
        "rate": found["requests"] / found["seconds"],
        "p50_us": found["p50"],
        "p99_us": found["p99"],
        "max_us": found["max"],
        "errors": found["refused"] + found["broken"],
    }


def streams(
    program: Path, port: int, count: int, chunks: int, rate: int, seconds: float, mark: Mark, *, key: str = ""
) -> Values:
    """Streams of `chunks` chunks at `rate` a second each, or as fast as they go for 0; times in microseconds."""
    warm = chunks / rate if rate else 0.5
    words = [str(program), *(str(word) for word in (port, count, chunks, rate, warm, seconds)), key]
    found: dict[str, Any] = {}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                found = json.loads(line)
            else:
                mark(line.strip())
    if not found:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode} and no figures")
    if found["errors"]:
        print(f"  {found['errors']} errors in streams; the last: {found['last_error']}", flush=True)
    values = {"count": found["chunks"], "rate": found["chunks"] / found["seconds"], "errors": found["errors"]}
    if found["reads"]:
        values["chunks_per_read"] = found["chunks"] / found["reads"]
    for name, prefix in (("first", "first_"), ("chunk", "")):
        if found[name]["count"]:
            values |= {f"{prefix}{part}_us": found[name][part] for part in ("p50", "p99", "max")}
    return values


def idle(port: int, data: bytes, count: int, mark: Mark, *, key: str = "") -> Values:
    """`count` connections that have made one request each and stay; how many of them the gateway closed or refused."""
    held: list[http.client.HTTPConnection] = []
    for _ in range(count):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", PATH, data, _headers(key))
            connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            print(f"  connection {len(held) + 1}, which was to be idle: {error}", flush=True)
            break
        held.append(connection)
    time.sleep(0.5)
    mark("half")
    closed = count - len(held)
    for connection in held:
        closed += connection.sock is None or _ended(connection.sock)
        connection.close()
    return {"count": count, "closed": closed}


def _ended(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
