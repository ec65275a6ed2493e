"""The phase of an engine's start, from a line of its log: of vLLM 0.32, llama-server build 11434 and mlx_lm 0.32."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["PHASES", "PhaseSign", "is_fatal", "phase_of"]

PHASES = ("download", "weights", "compile", "kv-cache", "warm-up", "ready")
"""In their order on a GPU; on a CPU vLLM warms up before it allocates the KV cache. An engine may skip phases. `ready`
comes from the log; whether requests are answered, only /health tells."""


@dataclass(frozen=True, slots=True)
class PhaseSign:
    """What a line says.

    Attributes:
        finished: the phase ends with this line.
        seconds: how long it took, if the line says.
        memory_gib: memory that it used or found, in GiB.
        fraction: progress, 0 to 1.
    """

    phase: str
    finished: bool = False
    seconds: float | None = None
    memory_gib: float | None = None
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class _Rule:
    phase: str
    pattern: re.Pattern[str]
    finished: bool = False


def _rule(phase: str, pattern: str, *, finished: bool = False) -> _Rule:
    return _Rule(phase, re.compile(pattern), finished)


_SECONDS = r"(?P<seconds>\d+(?:\.\d+)?)"
_GIB = r"(?P<gib>\d+(?:\.\d+)?)"

_VLLM = (
    _rule("download", rf"Time spent downloading weights for .*: {_SECONDS} seconds", finished=True),
    _rule("weights", r"Starting to load model "),
    _rule("weights", r"Loading \S+ checkpoint shards:\s+(?P<percent>\d+)% Completed"),
    _rule("weights", rf"Loading weights took {_SECONDS} seconds", finished=True),
    _rule("weights", rf"Model loading took {_GIB} GiB memory and {_SECONDS} seconds", finished=True),
    _rule("compile", r"Starting torch\.compile|Using cache directory: .* for vLLM's torch\.compile"),
    _rule("compile", r"Warming up model for the compilation"),
    _rule("compile", rf"Dynamo bytecode transform time: {_SECONDS} s"),
    _rule("compile", rf"Compiling a graph for compile range .* takes {_SECONDS} s"),
    _rule(
        "compile", rf"torch\.compile (?:and initial profiling.warmup run together )?took {_SECONDS} s", finished=True
    ),
    _rule("compile", r"saved AOT compiled function to ", finished=True),
    _rule("kv-cache", rf"Available KV cache memory: {_GIB} GiB"),
    _rule("kv-cache", rf"Explicitly set \({_GIB}/[\d.]+\) GiB for KV cache"),
    _rule("kv-cache", r"[GC]PU KV cache size: [\d,]+ tokens", finished=True),
    _rule("warm-up", rf"Initial profiling/warmup run took {_SECONDS} s"),
    _rule("warm-up", r"Capturing CUDA graphs.*?(?P<percent>\d+)%"),
    _rule("warm-up", rf"Graph capturing finished in {_SECONDS} secs, took {_GIB} GiB", finished=True),
    _rule("warm-up", r"Warming up done", finished=True),
    _rule("warm-up", rf"init engine \(profile, create kv cache, warmup model\) took {_SECONDS} s", finished=True),
    _rule("ready", r"Application startup complete", finished=True),
)
_LLAMA_CPP = (
    _rule("download", r"downloading from |trying to download model"),
    _rule("weights", r"load_model: loading model '"),
    _rule("kv-cache", r"load_model: initializing, n_slots = \d+"),
    _rule("warm-up", r"warming up the model with an empty run"),
    _rule("ready", r"(?:server is )?listening on (?:http|unix)", finished=True),
)
_MLX_LM = (
    _rule("download", r"Fetching \d+ files:\s+(?P<percent>\d+)%"),
    _rule("ready", r"Starting httpd at ", finished=True),
)
_FATAL = {"mlx_lm": re.compile(r"generation thread died|OSError: \[Errno \d+\] Address already in use")}
_RULES: Mapping[str, Sequence[_Rule]] = {
    "vllm": _VLLM,
    "sim": _VLLM,
    "llama_cpp": _LLAMA_CPP,
    "mlx_lm": _MLX_LM,
}


_LINE_CHARACTERS = 1000


def phase_of(engine: str, line: str) -> PhaseSign | None:
    """What `line` of the engine's log says about its start; None if nothing."""
    line = line[:_LINE_CHARACTERS]  # a pattern may be quadratic, and this runs on the event loop
    for rule in _RULES.get(engine, ()):
        if found := rule.pattern.search(line):
            return _sign(rule, found.groupdict())
    return None


def is_fatal(engine: str, line: str) -> bool:
    """Whether `line` says that the engine will never be ready, although its process may stay alive.

    mlx_lm.server does that: without a port or a model, its other thread keeps the process alive.
    """
    pattern = _FATAL.get(engine)
    return pattern is not None and pattern.search(line) is not None


def _sign(rule: _Rule, groups: Mapping[str, str | None]) -> PhaseSign:
    seconds, gib, percent = (groups.get(name) for name in ("seconds", "gib", "percent"))
    return PhaseSign(
        phase=rule.phase,
        finished=rule.finished or percent == "100",
        seconds=float(seconds) if seconds is not None else None,
        memory_gib=float(gib) if gib is not None else None,
        fraction=int(percent) / 100 if percent is not None else None,
    )
