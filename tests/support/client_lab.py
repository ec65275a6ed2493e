"""A `garrison up` as clients meet it: with an inference key, several names for a model, and engines that are cold."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_model as maker
from prometheus_client.parser import text_string_to_metric_families
from server_lab import ServerLab, wait_for

__all__ = [
    "EVERY",
    "LLAMA_CPP",
    "MANAGER",
    "PROMPT",
    "SIMULATED",
    "VLLM",
    "Served",
    "on",
    "on_engines",
    "on_simulators",
]

SIMULATED = pytest.param("simulated")
VLLM = pytest.param("vllm", marks=pytest.mark.engine("vllm"))
LLAMA_CPP = pytest.param("llama_cpp", marks=pytest.mark.engine("llama_cpp"))
EVERY = (SIMULATED, VLLM, LLAMA_CPP)

PROMPT = "Hello there, tell me about the weather in the mountains today, please."
"""Long on purpose: on a CPU with AMX, a first prompt of four tokens kills vLLM 0.32."""
MANAGER = "key-of-a-manager-for-the-tests-0123456789"
_START_SECONDS = 300
_RUNNING = ("vllm:num_requests_running", "llamacpp:requests_processing")
_GENERATED = ("vllm:generation_tokens_total", "llamacpp:tokens_predicted_total")
_CLIENTS = Path(__file__).resolve().parents[1] / "clients"

_SIMULATORS = """\
stack: clients
instances:
  fast: {{model: {model}, engine: sim, served_model_name: tiny, on_demand: true}}
  slow: {{model: {model}, engine: sim, options: {{tokens-per-second: 20}}, on_demand: true}}
  cold: {{model: {model}, engine: sim, options: {{startup-delay: 0.5}}, on_demand: true}}
  recorded: {{custom: {{argv: [{python}, -P, {server}, "{{port}}"], ready_path: /health}}, on_demand: true}}
adapters:
  sql: {{targets: [fast], lora_path: {adapter}}}
policy: {{on_drift: restore, interval: 1s}}
routes:
  gpt-4o-mini: {{to: fast}}
  claude-haiku: {{to: recorded}}
  sql-bot: {{to: fast/sql}}
"""
_ENGINES = """\
stack: clients
instances:
  big:
    model: {model}
    engine: vllm
    options: {{enforce-eager: true, dtype: bfloat16, max-model-len: 16384, enable-auto-tool-choice: true,
      tool-call-parser: hermes}}
    env: {{VLLM_CPU_KVCACHE_SPACE: "1"}}
    on_demand: true
  small: {{model: {gguf}, engine: llama_cpp, options: {{ctx-size: 16384, metrics: true}}, on_demand: true}}
  vectors:
    model: {gguf}
    engine: llama_cpp
    options: {{ctx-size: 512, embeddings: true, pooling: mean}}
    on_demand: true
routes:
  gpt-4o-mini: {{to: big}}
  claude-haiku: {{to: small}}
"""


def on(*where: Any) -> pytest.MarkDecorator:
    """Run a test with `served` on each of `where`."""
    return pytest.mark.parametrize("served", where, indirect=True)


@dataclass(frozen=True)
class Served:
    """What a client is pointed at.

    Attributes:
        key: permits inference, without limits.
        names: of one model that chats, each for the same one.
        full: a model that also calls tools and speaks the APIs for responses and messages.
        slow: a model that answers for long if it is asked for `most` tokens with `ignore_eos`.
        cold: a model whose instance no other test uses; `instance` is its name.
        vectors: a model for embeddings; empty where there is none.
    """

    lab: ServerLab
    key: str
    names: tuple[str, ...]
    full: str
    slow: str
    most: int
    cold: str
    vectors: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.lab.port}"

    @property
    def chat(self) -> str:
        return self.names[0]

    def make_key(self, name: str, **fields: Any) -> str:
        """A further key, with limits or permissions of its own."""
        return str(self.lab.api("POST", "/auth/keys", {"name": name, **fields})["key"])

    def stop(self, instance: str) -> None:
        """Have an instance cold."""
        if self.lab.instance(instance)["state"] != "stopped":
            self.lab.api("POST", f"/instances/{instance}/stop")
        wait_for(lambda: self.lab.instance(instance)["state"] == "stopped", 60, "stopped")

    def generated(self) -> float:
        """Tokens that the slow model's engine has generated."""
        return self._metric(_GENERATED)

    def wait_until_idle(self) -> None:
        """Wait until the slow model's engine works on nothing, as it says itself and as the server counts."""
        wait_for(lambda: self._metric(_RUNNING) == 0, 20, "nothing is generated any more")
        wait_for(lambda: self.lab.instance(self.slow)["requests"] == 0, 10, "no request is counted")

    def _metric(self, names: tuple[str, ...]) -> float:
        page = self.lab.http.get(f"/upstream/{self.slow}/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name in names
        )


def on_simulators(root: Path, environ: Mapping[str, str], model: Path) -> Served:
    """Start a server on simulators and on recorded answers."""
    adapter = maker.make_adapter(root / "sql")
    text = _SIMULATORS.format(
        model=model, adapter=adapter, python=sys.executable, server=_CLIENTS / "recorded_server.py"
    )
    lab, key = _start(root, environ, text)
    wait_for(lambda: "fast" in {one["name"] for one in lab.api("GET", "/instances")}, 20, "the manifest is applied")
    lab.api("POST", "/instances/fast/start")
    ask = {"model": "fast/sql", "prompt": PROMPT, "max_tokens": 1}
    wait_for(lambda: lab.http.post("/v1/completions", json=ask).is_success, 30, "the adapter is loaded")
    names = ("fast", "gpt-4o-mini", "fast/tiny", "fast/sql", "sql-bot")
    return Served(lab, key, names, "recorded", "slow", 2000, "cold", "fast")


def on_engines(root: Path, environ: Mapping[str, str], engines: Mapping[str, Path]) -> Mapping[str, Served]:
    """Start a server on vLLM and llama.cpp.

    Args:
        engines: where each is installed, by its name.
    """
    for name, place in engines.items():
        (root / "data" / "engines").mkdir(parents=True, exist_ok=True)
        (root / "data" / "engines" / name).symlink_to(place)
    # An answer so long that no engine is done before a slow client has left. With fewer layers vLLM makes tokens faster
    # than its API server passes them on, and that hears of no client that leaves.
    model = maker.make_model(root / "big", layers=24, context=16_384)
    text = _ENGINES.format(model=model, gguf=maker.make_gguf(root / "tiny.gguf", context=16_384))
    lab, key = _start(root, environ, text)
    lab.http.timeout = _START_SECONDS
    wait_for(lambda: len(lab.api("GET", "/instances")) == 3, 20, "the manifest is applied")
    return {
        "vllm": Served(lab, key, ("big", "gpt-4o-mini"), "big", "big", 15_000, "big", ""),
        "llama_cpp": Served(lab, key, ("small", "claude-haiku"), "small", "small", 15_000, "small", "vectors"),
    }


def _start(root: Path, environ: Mapping[str, str], manifest: str) -> tuple[ServerLab, str]:
    (root / "garrison.yaml").write_text(manifest, encoding="utf-8")
    lab = ServerLab(
        root, environ, require_inference_auth="1", require_management_auth="1", management_keys=MANAGER,
        on_demand_start_timeout=str(_START_SECONDS),
    )  # fmt: skip
    lab.http.headers["Authorization"] = f"Bearer {MANAGER}"
    lab.start("-f", str(root / "garrison.yaml"))
    return lab, str(lab.api("POST", "/auth/keys", {"name": "client"})["key"])
