"""`/metrics` in the Prometheus text format, with vLLM's names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from garrison.sim.engine import Engine

__all__ = ["CONTENT_TYPE", "Counters", "render"]

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"


@dataclass(slots=True)
class Counters:
    """What a simulator has done so far; a simulated restart does not reset it.

    Attributes:
        requests: by path, including refused and disguised ones; unknown paths count as `other`.
        finished: generations by finish reason.
        running, waiting: requests now.
        injected: faults by action.
    """

    requests: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    running_adapters: Counter[str] = field(default_factory=Counter)
    running: int = 0
    waiting: int = 0
    running_tokens: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    restarts: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready form, one key per field."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in values.items()}


def render(engine: Engine, counters: Counters, now: float) -> bytes:
    """Render the page. `now` is the wall clock, which is the value of `vllm:lora_requests_info` in vLLM too."""
    config = engine.config
    labels = f'engine="0",model_name="{_escape(config.names[0])}"'
    capacity = config.cache_blocks * config.block_size
    lines = _family("process_start_time_seconds", "gauge", [("", engine.started_at)])
    lines += _family("vllm:num_requests_running", "gauge", [(labels, counters.running)])
    lines += _family("vllm:num_requests_waiting", "gauge", [(labels, counters.waiting)])
    states = ((None, "awake"), (1, "weights_offloaded"), (2, "discard_all"))
    sleep = [(f'{labels},sleep_state="{name}"', float(engine.sleep_level == level)) for level, name in states]
    lines += _family("vllm:engine_sleep_state", "gauge", sleep)
    lines += _family("vllm:kv_cache_usage_perc", "gauge", [(labels, min(1.0, counters.running_tokens / capacity))])
    lines += _family("vllm:prompt_tokens_total", "counter", [(labels, counters.prompt_tokens)])
    lines += _family("vllm:generation_tokens_total", "counter", [(labels, counters.generation_tokens)])
    finished = [
        (f'engine="0",finished_reason="{reason}",model_name="{_escape(config.names[0])}"', counters.finished[reason])
        for reason in ("stop", "length", "abort", "error")
    ]
    lines += _family("vllm:request_success_total", "counter", finished)
    if config.enable_lora:
        names = ",".join(_escape(name) for name, count in counters.running_adapters.items() if name and count)
        info = f'max_lora="{config.max_loras}",running_lora_adapters="{names}",waiting_lora_adapters=""'
        lines += _family("vllm:lora_requests_info", "gauge", [(info, now)])
    cache = f'block_size="{config.block_size}",enable_prefix_caching="{config.prefix_caching}",engine="0"'
    lines += _family("vllm:cache_config_info", "gauge", [(cache, 1.0)])
    return ("\n".join(lines) + "\n").encode()


def _family(name: str, kind: str, samples: Sequence[tuple[str, float]]) -> list[str]:
    head = [f"# HELP {name} Simulated.", f"# TYPE {name} {kind}"]
    return head + [
        f"{name}{{{labels}}} {float(value)!r}" if labels else f"{name} {value!r}" for labels, value in samples
    ]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
