"""What an engine will take of memory, before it ran for the first time: weights, KV cache and a fixed overhead. Pure.

An estimate is meant to be a little too large: too small fails a start, too large costs an eviction. The first run is
measured, and no estimate is used after that.
"""

import math
from dataclasses import dataclass
from typing import Literal

from garrison.instances.room.values import Part

__all__ = ["GIB", "Estimate", "ModelShape", "Shape", "estimate", "gpus_needed"]

MIB, GIB = 1024**2, 1024**3

_OVERHEAD = {
    # CUDA's context, activations, captured graphs, and the libraries' own buffers.
    ("vllm", "gpu"): 3 * GIB,
    ("vllm", "host"): 2 * GIB,
    ("llama_cpp", "gpu"): 768 * MIB,
    ("llama_cpp", "host"): 256 * MIB,
    ("mlx_lm", "gpu"): 768 * MIB,
    ("mlx_lm", "host"): 512 * MIB,
}
_OTHER_OVERHEAD = GIB
_BESIDE_GPU = {"vllm": 3 * GIB}
"""System memory of an engine whose model is on GPUs."""
_OTHER_BESIDE_GPU = GIB
_BATCH_TOKENS = 32768
"""vLLM on a GPU gets a KV cache for at least so many tokens, so that several requests run at once."""
_MLX_TOKENS = 8192
"""MLX has no fixed context: its cache grows with what is asked for."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a model's files tell about the memory that it takes. A field is None if they do not tell.

    Attributes:
        weights: bytes of its weights on disk, which is what they take in memory as well.
        layers: all of them, for a model that is partly on a GPU.
        full: layers whose KV cache grows with the sequence.
        sliding: layers that keep the last `window` tokens of it.
        kv_width: numbers that one token adds to the KV cache of one layer: keys and values of all heads.
        dtype_bytes: of one number of the KV cache, unless the engine is told otherwise.
        context: tokens of the longest sequence.
    """

    weights: int
    layers: int | None = None
    full: int | None = None
    sliding: int = 0
    window: int = 0
    kv_width: int | None = None
    dtype_bytes: float = 2.0
    context: int | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What the options of an instance say about the memory that it takes.

    Attributes:
        engine: its registry name.
        on: where its weights and its KV cache are.
        context: tokens of one sequence; None for the model's own.
        sequences: each with a context of its own.
        kv_bytes: of one number of the KV cache; None for the model's own.
        kv_space: bytes of the whole KV cache, where it is set.
        gpu_layers: that are on the GPUs, the rest in system memory; None for all.
    """

    engine: str
    on: Literal["gpu", "host"]
    context: int | None = None
    sequences: int = 1
    kv_bytes: float | None = None
    kv_space: int | None = None
    gpu_layers: int | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes on the devices of an instance, all together, and in system memory beside them.

    Attributes:
        parts: of `bytes`.
        fixed: the part that every GPU of several takes as a whole.
    """

    parts: tuple[Part, ...]
    fixed: int = 0
    host: int = 0

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)

    def on_each(self, gpus: int) -> int:
        """Bytes on each of `gpus` that share the model evenly."""
        return self.fixed + math.ceil((self.bytes - self.fixed) / max(1, gpus))


def estimate(model: ModelShape, shape: Shape) -> Estimate:
    """Estimate what an instance takes."""
    fixed = _OVERHEAD.get((shape.engine, shape.on), _OTHER_OVERHEAD)
    tokens = _tokens(model, shape)
    cache = _kv_cache(model, shape, tokens)
    if shape.on == "host":
        return Estimate(_parts(model.weights, cache, tokens, fixed), fixed)
    beside = _BESIDE_GPU.get(shape.engine, _OTHER_BESIDE_GPU)
    if shape.gpu_layers is None or not model.layers or shape.gpu_layers > model.layers:
        return Estimate(_parts(model.weights, cache, tokens, fixed), fixed, beside)
    share = shape.gpu_layers / model.layers
    weights, kept = math.ceil(model.weights * share), math.ceil(cache * share)
    rest = model.weights - weights + cache - kept
    return Estimate(_parts(weights, kept, tokens, fixed), fixed, beside + rest)


def gpus_needed(found: Estimate, largest: int) -> int:
    """How many GPUs of `largest` bytes hold an engine that spreads its layers over as many as it needs."""
    room = largest - found.fixed
    return max(1, math.ceil((found.bytes - found.fixed) / room)) if room > 0 else 1


def _tokens(model: ModelShape, shape: Shape) -> int | None:
    context = shape.context or model.context
    if context is None:
        return None
    tokens = context * max(1, shape.sequences)
    if shape.context is None and shape.engine == "mlx_lm":
        return min(tokens, _MLX_TOKENS)
    return max(tokens, _BATCH_TOKENS) if (shape.engine, shape.on) == ("vllm", "gpu") else tokens


def _kv_cache(model: ModelShape, shape: Shape, tokens: int | None) -> int:
    if shape.kv_space is not None:
        return shape.kv_space
    if tokens is None or model.full is None or model.kv_width is None:
        return 0
    width = model.kv_width * (model.dtype_bytes if shape.kv_bytes is None else shape.kv_bytes)
    return math.ceil(width * (tokens * model.full + min(tokens, model.window * shape.sequences) * model.sliding))


def _parts(weights: int, cache: int, tokens: int | None, fixed: int) -> tuple[Part, ...]:
    named = "KV cache" if tokens is None else f"KV cache of {tokens} tokens"
    cached = (Part(named, cache),) if cache else ()
    return (Part("weights", weights), *cached, Part("overhead", fixed))
