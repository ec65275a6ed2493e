"""What the options of an instance say about the memory that it takes. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from garrison.engines.argv import last_value
from garrison.instances.room.estimate import GIB, Shape

__all__ = ["gpus_asked_for", "shape_of", "utilization", "vllm_default_share"]

_CONTEXT = {
    "vllm": ("--max-model-len",),
    "sim": ("--max-model-len",),
    "llama_cpp": ("--ctx-size", "-c"),
}
_CONTEXT_VARIABLES = {"llama_cpp": "LLAMA_ARG_CTX_SIZE"}
_GPU_LAYERS = ("--gpu-layers", "-ngl", "--n-gpu-layers")
_UTILIZATION = ("--gpu-memory-utilization", "--device-memory-utilization")
_DEFAULT_SHARE = 0.92
"""vLLM's own, since 0.32."""
_KV_TYPES = {
    "f32": 4.0, "float32": 4.0, "f16": 2.0, "float16": 2.0, "bf16": 2.0, "bfloat16": 2.0, "q8_0": 34 / 32,
    "q4_0": 18 / 32, "q4_1": 20 / 32, "iq4_nl": 18 / 32, "q5_0": 22 / 32, "q5_1": 24 / 32,
}  # fmt: skip
_KV_TYPE_STARTS = {"fp8": 1.0, "int8": 1.0, "int4": 0.625, "nvfp4": 0.625}
_HUMAN = re.compile(r"(\d+(?:\.\d+)?)([kKmMgG]?)\Z")
_UNITS = {"": 1, "k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2, "g": 1000**3, "G": 1024**3}
_MOST_GPUS = 1024


def shape_of(engine: str, on: Literal["gpu", "host"], args: Sequence[str], env: Mapping[str, str]) -> Shape:
    """Read the options that decide about memory.

    Args:
        args: the engine's arguments; later ones override earlier ones.
        env: variables of the engine.
    """
    context = _whole(last_value(args, _CONTEXT.get(engine, ())) or env.get(_CONTEXT_VARIABLES.get(engine, ""), ""))
    if engine == "llama_cpp":
        return Shape(engine, on, context, kv_bytes=_llama_kv_bytes(args), gpu_layers=llama_gpu_layers(args, env))
    if engine in ("vllm", "sim"):
        dtype = last_value(args, {"--kv-cache-dtype"}) or "auto"
        given = last_value(args, {"--dtype"}) or "auto"
        wide = 4.0 if given in ("float", "float32") else None
        return Shape(engine, on, context, kv_bytes=_kv_type(dtype) or wide, kv_space=_vllm_space(on, args, env))
    return Shape(engine, on, context)


def llama_gpu_layers(args: Sequence[str], env: Mapping[str, str]) -> int | None:
    """Layers that llama.cpp puts on GPUs; None for as many as fit, which is meant to be all of them."""
    text = last_value(args, _GPU_LAYERS) or env.get("LLAMA_ARG_N_GPU_LAYERS", "")
    return int(text) if text.isascii() and text.isdigit() else None


def utilization(args: Sequence[str]) -> float | None:
    """The share of each GPU that vLLM was told to take; None where the user left that out, or no share is meant."""
    try:
        share = float(last_value(args, _UTILIZATION) or "")
    except ValueError:
        return None
    return share if 0 < share <= 1 else None


def vllm_default_share() -> float:
    """What vLLM takes of each GPU unless it is told otherwise."""
    return _DEFAULT_SHARE


def gpus_asked_for(engine: str, args: Sequence[str], env: Mapping[str, str]) -> tuple[int, int]:
    """GPUs that an engine uses at once, and over how many of them one copy of the model is spread.

    (0, 0) where it decides itself: llama.cpp spreads its layers over the GPUs that it sees.
    """
    if engine == "llama_cpp":
        split = last_value(args, {"--tensor-split", "-ts"}) or env.get("LLAMA_ARG_TENSOR_SPLIT", "")
        parts = [part for part in re.split("[,/]", split) if part.strip() not in ("", "0")]
        if (last_value(args, {"--split-mode", "-sm"}) or env.get("LLAMA_ARG_SPLIT_MODE")) == "none":
            return 1, 1
        return (len(parts), len(parts)) if parts else (0, 0)
    if engine not in ("vllm", "sim"):
        return 1, 1
    spread = _factor(args, "--tensor-parallel-size", "-tp") * _factor(args, "--pipeline-parallel-size", "-pp")
    copies = _factor(args, "--data-parallel-size-local", "-dpl") if last_value(
        args, {"--data-parallel-size-local", "-dpl"}
    ) else _factor(args, "--data-parallel-size", "-dp")  # fmt: skip
    return spread * copies, spread


def _factor(args: Sequence[str], *flags: str) -> int:
    text = last_value(args, flags) or ""
    return min(_MOST_GPUS, int(text)) if text.isascii() and text.isdigit() and int(text) > 0 else 1


def _vllm_space(on: str, args: Sequence[str], env: Mapping[str, str]) -> int | None:
    """Bytes of the KV cache, where they are set: for a GPU by a flag, for the CPU in GiB by a variable."""
    if on == "gpu":
        return _whole(last_value(args, {"--kv-cache-memory-bytes", "--kv-cache-memory"}) or "")
    space = _whole(env.get("VLLM_CPU_KVCACHE_SPACE", ""))
    return None if space is None else space * GIB


def _llama_kv_bytes(args: Sequence[str]) -> float | None:
    keys = _kv_type(last_value(args, {"--cache-type-k", "-ctk"}) or "f16")
    values = _kv_type(last_value(args, {"--cache-type-v", "-ctv"}) or "f16")
    return None if keys is None or values is None else (keys + values) / 2


def _kv_type(name: str) -> float | None:
    if name in _KV_TYPES:
        return _KV_TYPES[name]
    return next((size for start, size in _KV_TYPE_STARTS.items() if name.startswith(start)), None)


def _whole(text: str) -> int | None:
    """A positive number as vLLM writes it, such as 8192, 8k or 8K; None for anything else."""
    found = _HUMAN.match(text.strip())
    value = int(float(found[1]) * _UNITS[found[2]]) if found and len(text) < 20 else 0
    return value or None
