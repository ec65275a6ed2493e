"""A description of a model, for lists and forms: architecture, types, context, size; from its config and headers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from garrison.models.config import read_config
from garrison.models.formats.gguf import GgufHeader, read_gguf
from garrison.models.formats.safetensors import Header
from garrison.models.integrity import check_weights
from garrison.models.validate import ModelFiles, WeightFormat, validate_model

__all__ = ["ModelInfo", "context_length", "count_parameters", "model_info"]

_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
# With these, max_position_embeddings is the stretched length already: vLLM 0.32 does not multiply it again.
_NO_FACTOR = {"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"}
# Tensors beside a quantized matrix that are not parameters of the model.
_QUANT_PARTS = ("qzeros", "scales", "g_idx", "weight_scale", "weight_scale_inv", "input_scale", "absmax", "quant_map")
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_GGUF_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
    40: "Q1_0",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A field is None if the files do not tell.

    Attributes:
        architecture: the class in `architectures`, or GGUF's `general.architecture`.
        dtype: of the weights, in torch's words.
        quantization: the method, with bits if it has them: `awq-4bit`, `fp8`, `Q4_K_M`.
        context_length: in tokens, with rope scaling applied as vLLM does.
        rope_scaling: its type.
        parameters: elements of all tensors; packed ones count for the values they hold.
        bytes: of the weights.
    """

    architecture: str | None
    model_type: str | None
    dtype: str | None
    quantization: str | None
    context_length: int | None
    rope_scaling: str | None
    vocabulary: int | None
    parameters: int | None
    bytes: int
    format: WeightFormat


def model_info(path: Path, *, files: ModelFiles | None = None) -> ModelInfo:
    """Describe the model in `path`; pass `files` if it is already validated.

    Raises:
        ModelInvalidError: it is not a whole model.
    """
    files = files or validate_model(path, skip_tokenizer=True, allow_gguf=True)
    if files.format == "gguf":
        return _from_gguf([read_gguf(weights) for weights in files.weights], files)
    config = read_config(files)
    headers = check_weights(files)
    return _from_config(config, [headers[weights] for weights in files.weights if weights in headers], files)


def context_length(config: Mapping[str, Any]) -> int | None:
    """The longest sequence that the config allows, in tokens; multiplied by rope scaling where vLLM does so."""
    text = _text_config(config)
    length = next((value for key in _CONTEXT_KEYS if (value := _whole(text, key))), None)
    rope = _rope(text)
    factor = rope.get("factor")
    stretched = _rope_type(rope) in _NO_FACTOR or "gemma3" in str(text.get("model_type"))
    if length is None or stretched or not isinstance(factor, int | float):
        return length
    return int(length * factor)


def count_parameters(headers: list[Header], config: Mapping[str, Any]) -> int:
    """Count the elements of all tensors. Packed weights count for the values they hold; scales do not count."""
    bits = _quant_bits(config)
    total = 0
    for header in headers:
        for name, tensor in header.tensors.items():
            last = name.rpartition(".")[2]
            if bits and (last in _QUANT_PARTS or last.endswith(("_scales", "_scale", "_zero_point", "_blocks.shape"))):
                continue
            packed = bits and tensor.dtype in ("U8", "I32", "U32") and last != "weight_shape"
            width = {"U8": 8}.get(tensor.dtype, 32)
            total += prod(tensor.shape) * (width // bits if packed and bits and bits < width else 1)
    return total


def _from_config(config: Mapping[str, Any], headers: list[Header], files: ModelFiles) -> ModelInfo:
    text = _text_config(config)
    architectures = config.get("architectures")
    kinds = Counter(tensor.dtype for header in headers for tensor in header.tensors.values())
    common = kinds.most_common(1)[0][0] if kinds else ""
    dtype = next((_word(c, key) for c in (config, text) for key in ("dtype", "torch_dtype") if _word(c, key)), None)
    return ModelInfo(
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else None,
        model_type=_word(config, "model_type"),
        dtype=dtype or _DTYPES.get(common, common.lower() or None),
        quantization=_quantization(config),
        context_length=context_length(config),
        rope_scaling=_rope_type(_rope(text)),
        vocabulary=_whole(text, "vocab_size"),
        parameters=count_parameters(headers, config) if headers else None,
        bytes=files.bytes,
        format=files.format,
    )


def _from_gguf(headers: list[GgufHeader], files: ModelFiles) -> ModelInfo:
    first = headers[0].metadata
    architecture = _word(first, "general.architecture")
    file_type = first.get("general.file_type")
    kind = _GGUF_TYPES.get(file_type) if isinstance(file_type, int) else None
    plain = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    return ModelInfo(
        architecture=architecture,
        model_type=architecture,
        dtype=plain.get(kind or ""),
        quantization=None if kind in plain else kind,
        context_length=_whole(first, f"{architecture}.context_length"),
        rope_scaling=_word(first, f"{architecture}.rope.scaling.type"),
        vocabulary=_whole(first, f"{architecture}.vocab_size") or _whole(first, "tokenizer.ggml.tokens"),
        parameters=sum(header.parameters for header in headers),
        bytes=files.bytes,
        format="gguf",
    )


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language part of a multimodal model's config."""
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, dict) else config


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    return rope if isinstance(rope, dict) else {}


def _rope_type(rope: Mapping[str, Any]) -> str | None:
    return _word(rope, "rope_type") or _word(rope, "type")


def _quantization(config: Mapping[str, Any]) -> str | None:
    quant = config.get("quantization_config")
    if isinstance(quant, dict):
        method = _word(quant, "quant_method") or "unknown"
        bits = _quant_bits(config)
        return f"{method}-{bits}bit" if bits and bits < 8 else method
    bits = _quant_bits(config)
    return f"mlx-{bits}bit" if bits else None


def _quant_bits(config: Mapping[str, Any]) -> int | None:
    """Bits per packed weight; None if the weights are not packed."""
    quant = config.get("quantization_config") or config.get("quantization")
    if not isinstance(quant, dict):
        return None
    if quant.get("load_in_4bit") is True or quant.get("quant_method") == "mxfp4":
        return 4
    bits = _whole(quant, "bits") or _whole(quant, "w_bit")
    if bits is None and quant.get("quant_method") in ("fp8", "compressed-tensors", "modelopt"):
        return 8
    return bits


def _whole(values: Mapping[str, Any], key: str) -> int | None:
    value = values.get(key)
    return value if type(value) is int and value > 0 else None


def _word(values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) and value else None
