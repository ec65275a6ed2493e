"""The workflow of `scripts/demo`, run once the environment is ready."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
from demo_server import demo_server
from tiny_model import make_adapter, make_model

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GARRISON_DATA_DIR") or ROOT / ".cache" / "demo")
NAME = "acme/tiny"
PROMPT = "What do you see from the harbor?"
READY_SECONDS = 300
STOP_SECONDS = 60


def main() -> int:
    begun = time.monotonic()
    os.environ["GARRISON_DATA_DIR"] = str(DATA)
    say("1/8 install the engines for the CPU: vLLM, llama.cpp, mlx_lm")
    for engine in ("vllm", "llama_cpp", "mlx_lm"):
        run("engine", "install", engine, "--device", "cpu")
    say("2/8 make a tiny random model and an adapter, and import them into the library")
    made = DATA / "made"
    run("models", "import", str(make_model(made / "tiny")), "--as", NAME, "--replace")
    run("adapters", "import", str(make_adapter(made / "poet")), "--replace")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    say(f"3/8 garrison serve {NAME}")
    with served(port) as server:
        wait(url, server)
        say("4/8 stream a chat with the base model")
        base = stream_chat(url, NAME)
        say("5/8 load the adapter into the running engine, and ask again")
        load_adapter(url, "poet", DATA / "adapters" / "poet")
        adapted = stream_chat(url, "poet")
        if adapted == base:
            raise SystemExit("the adapter had no effect: the answers are the same")
        print("    the answers differ")
        run("smoke", url)
        say("6/8 shut down")
        processes = psutil.Process(server.pid).children(recursive=True)
    if left := [process for process in processes if process.is_running()]:
        raise SystemExit(f"processes left behind: {left}")
    say("7/8 garrison up: three engines declared in one manifest")
    demo_server(made, free_port(), lambda text: say(f"8/8 {text}"))
    say(f"done in {time.monotonic() - begun:.0f} s; no process left behind, port {port} is free again")
    return 0


def say(text: str) -> None:
    print(f"\033[1m── {text}\033[0m" if sys.stdout.isatty() else f"── {text}", flush=True)


def run(*arguments: str) -> None:
    print(f"    $ garrison {' '.join(arguments)}", flush=True)
    subprocess.run(["garrison", *arguments], check=True)


def wait(url: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the endpoint is ready; stop as soon as the server exits."""
    print(f"    $ garrison wait {url}", flush=True)
    deadline = time.monotonic() + READY_SECONDS
    while subprocess.run(["garrison", "wait", url, "--timeout", "2", "--quiet"], stderr=subprocess.DEVNULL).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the server did not become ready; its output is above")


@contextlib.contextmanager
def served(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run `garrison serve` during the body, then end it with SIGTERM and require exit code 0."""
    arguments = ["serve", NAME, "--port", str(port), "--runtime-lora", "--max-lora-rank", "8", "--no-logs"]
    engine = ["--enforce-eager", "--dtype", "bfloat16", "--max-model-len", "512"]
    print(f"    $ garrison {' '.join([*arguments, '--', *engine])}", flush=True)
    # The CPU engine allocates 4 GiB for its KV cache by default.
    server = subprocess.Popen(
        ["garrison", *arguments, "--", *engine], env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    )
    try:
        yield server
        server.send_signal(signal.SIGTERM)
        if (code := server.wait(STOP_SECONDS)) != 0:
            raise SystemExit(f"garrison serve exited with code {code}")
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait(STOP_SECONDS)


def stream_chat(url: str, model: str) -> str:
    """Stream a chat, printing the answer as it arrives; return the whole answer."""
    text = ""
    request: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 24,
        "temperature": 0,
        "stream": True,
    }
    print(f"    {model}:", end="", flush=True)
    with httpx2.stream("POST", f"{url}/v1/chat/completions", json=request, timeout=60, trust_env=False) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                piece = httpx2.Response(200, text=line[6:]).json()["choices"][0]["delta"].get("content") or ""
                print(piece, end="", flush=True)
                text += piece
    print()
    return text


def load_adapter(url: str, name: str, path: Path) -> None:
    answer = httpx2.post(
        f"{url}/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path)}, timeout=60, trust_env=False
    )
    answer.raise_for_status()
    print(f"    {answer.text}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
