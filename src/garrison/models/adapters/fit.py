"""Check whether an adapter fits a base model: its sizes against the base's tensors, or its config.

vLLM answers 200 to an adapter of the wrong shape and serves garbage, so this is checked before loading.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garrison.models.adapters.inspect import AdapterInfo, LoraModule
from garrison.models.files.content import json_object
from garrison.models.integrity import check_weights
from garrison.models.validate import validate_model

__all__ = ["BaseShapes", "check_against_base", "read_base_shapes"]

# At most nine digits: Python refuses to convert numbers of several thousand digits.
_LAYER = re.compile(r"(?:^|\.)(?P<rest>(?:layers|h|blocks)\.(?P<number>[0-9]{1,9})\..+)")
# Types whose tensors have the shape of their matrix; packed ones (U8, I32) do not.
_UNPACKED = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8"}


@dataclass(frozen=True, slots=True)
class BaseShapes:
    """`config` is config.json; `shapes` maps the names of unpacked tensors to their shapes, and may be empty."""

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]


def read_base_shapes(path: Path) -> BaseShapes:
    """Config and tensor shapes of the model in `path`, from its config and headers.

    Raises:
        ModelInvalidError: it is not a whole model.
    """
    files = validate_model(path, skip_tokenizer=True)
    headers = check_weights(files)
    shapes = {
        name: tensor.shape
        for weights in files.weights
        if weights in headers
        for name, tensor in headers[weights].tensors.items()
        if tensor.dtype in _UNPACKED
    }
    return BaseShapes(json_object(path / "config.json"), shapes)


def check_against_base(adapter: AdapterInfo, base: BaseShapes) -> list[str]:
    """What does not fit, one sentence each; empty if it fits, or if that is unknown (a pickle, a packed base)."""
    by_layer = {match["rest"]: shape for name, shape in base.shapes.items() if (match := _LAYER.search(name))}
    text = base.config.get("text_config")
    sizes = dict(base.config) | (text if isinstance(text, dict) else {})
    return list(_problems(adapter, base, by_layer, sizes))


def _problems(
    adapter: AdapterInfo, base: BaseShapes, by_layer: Mapping[str, tuple[int, ...]], sizes: Mapping[str, Any]
) -> Iterator[str]:
    layers = sizes.get("num_hidden_layers")
    for module in adapter.modules:
        match = _LAYER.search(module.name)
        if match and type(layers) is int and int(match["number"]) >= layers:
            yield f"{module.name} is in layer {match['number']}, and the base model has {layers} layers"
            continue
        shape = base.shapes.get(f"{module.name}.weight")
        if shape is None and match:
            shape = by_layer.get(f"{match['rest']}.weight")  # models nest their layers under different names
        expected = _from_tensor(module, shape, adapter) if shape else _from_config(module, sizes)
        for what, has, wants in zip(("inputs", "outputs"), (module.inputs, module.outputs), expected, strict=True):
            if wants is not None and has != wants:
                yield f"{module.name} has {has} {what}, and the base model has {wants}"


def _from_tensor(module: LoraModule, shape: tuple[int, ...], adapter: AdapterInfo) -> tuple[int | None, int | None]:
    if len(shape) < 2:
        return None, None
    rows, columns = shape[0], shape[1]
    return (rows, columns) if module.embedding or adapter.config.fan_in_fan_out else (columns, rows)


def _from_config(module: LoraModule, sizes: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The sizes that all Llama-like models name alike; None if the config does not tell."""
    if ".experts." in module.name or "shared_expert" in module.name:
        return None, None

    def size(key: str) -> int | None:
        value = sizes.get(key)
        return value if type(value) is int and value > 0 else None

    hidden, heads = size("hidden_size"), size("num_attention_heads")
    head = size("head_dim") or (hidden // heads if hidden and heads else None)
    key_value_heads = size("num_key_value_heads") or heads
    attention = heads * head if heads and head else None
    key_value = key_value_heads * head if key_value_heads and head else None
    known = {
        "q_proj": (hidden, attention),
        "k_proj": (hidden, key_value),
        "v_proj": (hidden, key_value),
        "o_proj": (attention, hidden),
        "gate_proj": (hidden, size("intermediate_size")),
        "up_proj": (hidden, size("intermediate_size")),
        "down_proj": (size("intermediate_size"), hidden),
        "lm_head": (hidden, size("vocab_size")),
        "embed_tokens": (size("vocab_size"), hidden),
    }
    return known.get(module.name.rpartition(".")[2], (None, None))
