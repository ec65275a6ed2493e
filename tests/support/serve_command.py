"""The console script as a process of its own, and a `garrison serve` of it for a while."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["GARRISON", "QUICK", "READY_SECONDS", "free_port", "garrison", "served"]

GARRISON = Path(sys.executable).with_name("garrison")
QUICK = ["--enforce-eager", "--dtype", "bfloat16", "--max-model-len", "512"]
"""Flags with which vLLM starts soon."""
READY_SECONDS = 240


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def garrison(env: dict[str, str], *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    command = [str(GARRISON), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=seconds, check=False)


@contextlib.contextmanager
def served(
    env: dict[str, str], log: Path, *arguments: str, scheme: str = "http", port: int | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`garrison serve` for the body, ready; stopped by SIGTERM after it, if the body has not."""
    port = port or free_port()
    with log.open("wb") as output:
        server = subprocess.Popen(
            [GARRISON, "serve", "--port", str(port), *arguments], env=env, stdout=output, stderr=output
        )
    url = f"{scheme}://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + READY_SECONDS
        while garrison(env, "wait", url, "--quiet", "--insecure", "--timeout", "2").returncode != 0:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        yield url, server
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait(60)
