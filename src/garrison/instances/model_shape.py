"""What a model on this machine will take of memory, by its files. Reads the disk: not for an event loop.

Only sizes, JSON and headers are read, under the limits of `garrison.models`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from garrison.base.clock import SystemClock
from garrison.base.errors import GarrisonError
from garrison.engines import registry
from garrison.engines.argv import last_value
from garrison.instances.room.estimate import ModelShape
from garrison.models.config import read_config
from garrison.models.files.content import is_file
from garrison.models.files.problem import Problem
from garrison.models.files.progress import Silent
from garrison.models.formats.gguf import read_gguf
from garrison.models.info import context_length
from garrison.models.request import NETWORK_SOURCES, ResolveRequest
from garrison.models.resolve import default_sources
from garrison.models.sources.local import LocalSource
from garrison.models.sources.source import Found, Source, Workspace
from garrison.models.validate import check_model

__all__ = ["find_on_disk", "gguf_shape", "read_shape", "shape_of_config"]

_FURTHER_FILES = ("--mmproj", "-mm", "--spec-draft-model", "-md", "--model-draft")
"""Options of llama.cpp that name a file whose weights are loaded as well."""
_NO_CACHE = ("linear_attention", "mamba", "recurrent", "conv")
_SLIDING = "sliding_attention"


def read_shape(engine: str, request: ResolveRequest, args: Sequence[str] = ()) -> ModelShape | None:
    """Read the shape of a model; None if it is not whole on this machine.

    Args:
        engine: the name of an engine in the registry, which says which file of a directory it loads.
        request: the model, and where it is looked for. No source that needs a network is asked.
        args: the engine's arguments, which may name further files.
    """
    try:
        path = find_on_disk(request)
        if path is None:
            return None
        program = registry.engine(engine)
        chosen = Path(program.locate_model(str(path)))
        args = (*program.model_args(str(chosen)), *args)
        found = check_model(chosen, skip_tokenizer=True, allow_gguf=True)
        if isinstance(found, Problem):
            return None
        further = sum(_size(last_value(args, {flag})) for flag in _FURTHER_FILES)
        if found.format == "gguf":
            return gguf_shape(read_gguf(found.weights[0]).metadata, found.bytes + further)
        return shape_of_config(read_config(found), found.bytes + further)
    except (GarrisonError, OSError):
        return None


def find_on_disk(request: ResolveRequest) -> Path | None:
    """Return the path of a model; None if it is not here. Looks where a start looks, in the same order."""
    workspace = Workspace(_fault, lambda _: 0, SystemClock())
    sources: list[Source] = [LocalSource()]
    if request.model.path is None:
        sources = [one for one in default_sources(request.sources) if one.name not in NETWORK_SOURCES]
    for source in sources:
        outcome = source.find(request, workspace, Silent())
        if isinstance(outcome, Found):
            return outcome.path
    return None


def _fault(path: Path) -> Problem | None:
    found = check_model(path, skip_tokenizer=True, allow_gguf=True)
    return found if isinstance(found, Problem) else None


def shape_of_config(config: Mapping[str, Any], weights: int) -> ModelShape:
    """Read a Hugging Face config. Pure.

    Args:
        weights: bytes of the weights.
    """
    text = {**config, **found} if isinstance(found := config.get("text_config"), dict) else config
    layers = _whole(text, "num_hidden_layers") or _whole(text, "n_layer")
    kinds = text.get("layer_types")
    full, sliding = layers, 0
    if isinstance(kinds, list) and kinds:
        sliding = sum(kind == _SLIDING for kind in kinds)
        full = sum(not str(kind).startswith(_NO_CACHE) for kind in kinds) - sliding
    return ModelShape(
        weights=weights,
        layers=layers,
        full=full,
        sliding=sliding,
        window=_whole(text, "sliding_window") or 0,
        kv_width=_kv_width(text),
        context=context_length(config),
    )


def _kv_width(text: Mapping[str, Any]) -> int | None:
    """Keys and values of one token in one layer. Latent attention keeps one vector for all heads."""
    if (rank := _whole(text, "kv_lora_rank")) is not None:
        return rank + (_whole(text, "qk_rope_head_dim") or 0)
    heads = _whole(text, "num_attention_heads") or _whole(text, "n_head")
    width = _whole(text, "hidden_size") or _whole(text, "n_embd")
    size = _whole(text, "head_dim") or (width // heads if heads and width else None)
    kept = _whole(text, "num_key_value_heads") or heads
    return None if kept is None or size is None else 2 * kept * size


def gguf_shape(metadata: Mapping[str, Any], weights: int) -> ModelShape:
    """Read the metadata of a GGUF file. Pure."""
    kind = metadata.get("general.architecture")

    def value(name: str) -> int | None:
        return _whole(metadata, f"{kind}.{name}")

    layers, heads = value("block_count"), value("attention.head_count")
    width = value("embedding_length")
    size = width // heads if heads and width else None
    # Where the number differs by layer, the reader gives the length of the list instead; never more than all heads.
    kept = min(value("attention.head_count_kv") or heads or 0, heads or 0)
    keys, values = value("attention.key_length") or size, value("attention.value_length") or size
    return ModelShape(
        weights=weights,
        layers=layers,
        full=layers,
        kv_width=kept * (keys + values) if kept and keys and values else None,
        context=value("context_length"),
    )


def _size(path: str | None) -> int:
    return Path(path).stat().st_size if path is not None and is_file(Path(path)) else 0


def _whole(values: Mapping[str, Any], key: str) -> int | None:
    value = values.get(key)
    return value if type(value) is int and value > 0 else None
