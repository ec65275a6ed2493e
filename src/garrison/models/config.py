"""The config of a model, under the names that Hugging Face's configs use."""

from collections.abc import Mapping
from typing import Any

from garrison.models.files.content import json_object
from garrison.models.validate import PARAMS_NAME, ModelFiles

__all__ = ["from_params", "read_config"]

_USUAL = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "hidden_dim": "intermediate_size",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "max_seq_len": "max_position_embeddings",
}


def read_config(files: ModelFiles) -> dict[str, Any]:
    """The config of a whole model; empty for a GGUF without one.

    Raises:
        ModelInvalidError: it cannot be read.
    """
    if files.config is None:
        return {}
    config = json_object(files.config)
    return from_params(config) if files.config.name == PARAMS_NAME else config


def from_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Mistral's params.json under the usual names; keys without one are kept. Pure."""
    kind = "pixtral" if "vision_encoder" in params else "mixtral" if params.get("moe") else "mistral"
    return {"model_type": kind} | {_USUAL.get(key, key): value for key, value in params.items()}
