"""How much a command costs before it does anything, in bare interpreter starts.

    python benchmarks/start.py [--fast]

`garrison --help`: at most 6. `vllm-preflight` on a free port, GPU skipped: at most 8.
"""

import os
import socket
import sys
from pathlib import Path

import pyperf
from ratio import show

BIN = Path(sys.executable).parent


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.setdefault("VLLM_PORT", port)
    os.environ |= {"VLLM_SKIP_GPU_CHECK": "1", "VLLM_HOST": "127.0.0.1"}
    # Workers inherit the port: all of them look at the same free one.
    runner = pyperf.Runner(processes=15, values=3, warmups=1)
    runner.parse_args()
    runner.args.inherit_environ = ["VLLM_PORT", "VLLM_HOST", "VLLM_SKIP_GPU_CHECK", "HOME"]
    bare = runner.bench_command("bare interpreter", [sys.executable, "-c", "pass"])
    help_ = runner.bench_command("garrison --help", [str(BIN / "garrison"), "--help"])
    preflight = runner.bench_command("vllm-preflight", [str(BIN / "vllm-preflight")])
    show("garrison --help", help_, bare, "at most 6")
    show("vllm-preflight", preflight, bare, "at most 8")


if __name__ == "__main__":
    main()
