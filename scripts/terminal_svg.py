#!/usr/bin/env python3
"""Make docs/terminal.svg from a real `garrison serve` on a pseudo-terminal, rendered by Rich.

Run `scripts/demo` first: it installs the engine and makes the model used here.
"""

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".cache" / "demo"
ENGINE = ["--enforce-eager", "--dtype", "bfloat16", "--max-model-len", "512"]


def main() -> int:
    os.environ |= {
        "GARRISON_DATA_DIR": str(DATA),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "TTY_INTERACTIVE": "0",
        "COLUMNS": "110",
        "TERM": "xterm-256color",
    }
    console = Console(record=True, width=110, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115 - stays open as long as the program runs
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = ["garrison", "serve", "acme/tiny", "--port", str(port), "--adapter", "poet=poet"]
    shown, process = start([*serve, "--", *ENGINE])
    url = f"http://127.0.0.1:{port}"
    subprocess.run(["garrison", "wait", url, "--quiet", "--timeout", "300"], check=True)
    smoke = run(["garrison", "smoke", url])
    process.send_signal(signal.SIGINT)
    process.wait(60)
    for command, output in ((serve, shown()), (["garrison", "smoke", url], smoke)):
        console.print(Text(f"$ {' '.join(command)}", "bold"))
        console.print(Text.from_ansi(output.replace(str(ROOT), "~").replace("\r", "")))
    (ROOT / "docs" / "terminal.svg").write_text(console.export_svg(title="garrison"), encoding="utf-8")
    print("docs/terminal.svg")
    return 0


def start(command: list[str]) -> tuple["Output", subprocess.Popen[bytes]]:
    """Start a command on a pseudo-terminal of its own."""
    here, there = pty.openpty()
    process = subprocess.Popen(command, stdin=there, stdout=there, stderr=there, start_new_session=True)
    os.close(there)
    return Output(here), process


def run(command: list[str]) -> str:
    output, process = start(command)
    process.wait(120)
    return output()


class Output:
    """Collects the output of a terminal; calling it waits for the end and returns the text."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __call__(self) -> str:
        self._thread.join(10)
        return b"".join(self._parts).decode()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:  # Linux reports EIO once the other side is closed
                return
            if not data:
                return
            self._parts.append(data)


if __name__ == "__main__":
    sys.exit(main())
