"""The second half of `scripts/demo`: one server, three engines declared in one manifest, an adapter that is healed."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
from tiny_model import make_adapter, make_gguf, make_model

PROMPT = "What do you see from the harbor on this quiet and windy morning?"
READY_SECONDS = 300
HEAL_SECONDS = 60

MANIFEST = """\
stack: demo
instances:
  qwen:
    model: {model}
    engine: vllm
    options: {{enforce-eager: true, dtype: bfloat16, max-model-len: 512}}
    env: {{VLLM_CPU_KVCACHE_SPACE: "1"}}
    max_lora_rank: 8
  llama: {{model: {gguf}, engine: llama_cpp, options: {{ctx-size: 512}}}}
  apple: {{model: {model}, engine: mlx_lm}}
adapters:
  poet: {{targets: [qwen], lora_path: {adapter}}}
policy: {{on_drift: restore, interval: 2s}}
"""


def demo_server(made: Path, port: int, say: Callable[[str], None]) -> None:
    """Declare, serve, evict, heal.

    Args:
        made: where models are made.
    """
    manifest = made / "garrison.yaml"
    model, gguf, adapter = make_model(made / "tiny"), make_gguf(made / "tiny.gguf"), make_adapter(made / "poet")
    manifest.write_text(MANIFEST.format(model=model, gguf=gguf, adapter=adapter), encoding="utf-8")
    print(manifest.read_text(encoding="utf-8"), flush=True)
    with server(manifest, port) as http:
        say("each of them answers through one port, started by its first request; two may run at once")
        for name in ("qwen", "llama", "apple"):
            print(f"    {name}: {ask(http, name)!r}   {states(http)}", flush=True)
        say("an adapter that was unloaded behind the server's back is loaded again")
        ask(http, "qwen")
        wait_until(lambda: "poet" in models(http), "the adapter is loaded at the engine's start")
        print(f"    qwen/poet: {ask(http, 'qwen/poet')!r}", flush=True)
        gone = http.post("/api/v1/instances/qwen/proxy/v1/unload_lora_adapter", json={"lora_name": "poet"})
        gone.raise_for_status()
        began = time.monotonic()
        wait_until(lambda: "poet" in models(http), "healed")
        print(f"    healed after {time.monotonic() - began:.1f} s", flush=True)


@contextlib.contextmanager
def server(manifest: Path, port: int) -> Iterator[httpx2.Client]:
    """Run `garrison up` during the body, then end it and its instances."""
    environ = os.environ | {
        "GARRISON_MAX_RUNNING_INSTANCES": "2",
        "GARRISON_RESIDENCY": "0",
        "GARRISON_REQUIRE_INFERENCE_AUTH": "0",
        "GARRISON_REQUIRE_MANAGEMENT_AUTH": "0",
        "GARRISON_ON_DEMAND_START_TIMEOUT": str(READY_SECONDS),
    }
    up = ["garrison", "up", "--detach", "--port", str(port), "-f", str(manifest)]
    print(f"    $ {' '.join(up)}", flush=True)
    subprocess.run(up, env=environ, check=True)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=READY_SECONDS, trust_env=False) as http:
            wait_until(lambda: len(states(http)) == 3, "the manifest is applied")
            yield http
    finally:
        print("    $ garrison down --all", flush=True)
        subprocess.run(["garrison", "down", "--all"], env=environ, check=True)


def ask(http: httpx2.Client, model: str) -> str:
    request: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 8,
        "temperature": 0,
    }
    answer = http.post("/v1/chat/completions", json=request)
    if answer.is_error:
        raise SystemExit(f"{model} answered {answer.status_code}: {answer.text}")
    message = answer.json()["choices"][0]["message"]
    return str(message.get("content") or message.get("reasoning") or "")


def states(http: httpx2.Client) -> dict[str, str]:
    return {one["name"]: one["state"] for one in http.get("/api/v1/instances").raise_for_status().json()}


def models(http: httpx2.Client) -> list[str]:
    answer = http.get("/api/v1/instances/qwen/proxy/v1/models")
    return [one["id"] for one in answer.json()["data"]] if answer.is_success else []


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + HEAL_SECONDS
    while not true():
        if time.monotonic() > deadline:
            sys.exit(f"not within {HEAL_SECONDS} s: {what}")
        time.sleep(0.2)
