"""A client that runs in another process: a call a line, and what came of it."""

import json
import os
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["CallFailed", "ClientProcess"]

_SECONDS = 300.0
"""For one call, a cold start included."""


class CallFailed(Exception):  # noqa: N818 - it carries what another process raised
    """What a call raised there.

    Attributes:
        kind: the name of its class.
        status: of the answer.
    """

    def __init__(self, kind: str, status: int | None, message: str) -> None:
        super().__init__(f"{kind} ({status}): {message}")
        self.kind, self.status = kind, status


class ClientProcess:
    """One process of a client. What a call needs, keys included, goes to its standard input.

    Args:
        first: a line that it reads before the calls.
    """

    def __init__(self, argv: Sequence[str | Path], environ: dict[str, str], first: Any = None) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "SSL_CERT_FILE") if name in os.environ}
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=kept | environ, text=True, bufsize=1
        )
        if first is not None:
            self._write(first)

    def call(self, name: str, **options: Any) -> Any:
        """Return what a call returned. Raises CallFailed."""
        self._write({"name": name, "options": options})
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _SECONDS)
        assert ready, f"{name} took longer than {_SECONDS:g} s"
        line = self._process.stdout.readline()
        assert line, f"the client ended with {self._process.wait(10)}"
        told = json.loads(line)
        if "error" in told:
            raise CallFailed(told["error"], told["status"], told["message"])
        return told["value"]

    def _write(self, value: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")

    def __enter__(self) -> "ClientProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process.stdout.close()
