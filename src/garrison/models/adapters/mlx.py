"""Inspect an adapter as mlx-lm's trainer writes it: `adapters.safetensors`, and a config of the training run."""

import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from garrison.base.beneath import Tree
from garrison.models.adapters.adapter import CONFIG_NAME, MLX_WEIGHTS, AdapterConfig, AdapterInfo, LoraModule
from garrison.models.files.content import json_object
from garrison.models.files.problem import Problem
from garrison.models.formats.safetensors import Header, read_header

__all__ = ["inspect_mlx"]

_TYPES = ("lora", "dora", "full")
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[ab])", re.DOTALL)
_IN_LIST = re.compile(r"\.[0-9]+\.(?P<rest>.+)", re.DOTALL)
_EMBEDDINGS = ("embed_tokens", "wte", "tok_embeddings")
_SHOWN = 80
_HINT = "Train the adapter again with mlx_lm.lora, or copy it again."


def inspect_mlx(path: Path, tree: Tree | None = None) -> AdapterInfo:
    """Read and check the adapter in directory `path`. `tree` as in `content.open_file`.

    Raises:
        ModelInvalidError: an incomplete config, missing or broken weights, or tensors that contradict the config:
            mlx-lm would fail at the first request. The message names the file.
    """
    config = _parsed(json_object(path / CONFIG_NAME, tree), path / CONFIG_NAME)
    weights = path / MLX_WEIGHTS
    header = read_header(weights, tree)
    modules = tuple(_modules(header, config, weights))
    dtypes = {tensor.dtype for tensor in header.tensors.values()}
    return AdapterInfo(
        name=path.absolute().name,
        path=path,
        config=config,
        weights=weights,
        bytes=header.size,
        dtype=dtypes.pop() if len(dtypes) == 1 else "mixed",
        max_rank=config.rank,
        modules=modules,
        format="mlx",
    )


def _parsed(raw: Mapping[str, Any], path: Path) -> AdapterConfig:
    kind, model = raw.get("fine_tune_type", "lora"), raw.get("model")
    base = model if isinstance(model, str) and model else None
    if kind not in _TYPES:
        raise Problem(str(path), f"fine_tune_type must be one of {', '.join(_TYPES)}", _HINT).error()
    if kind == "full":
        return AdapterConfig("FULL", 0, 0.0, (), False, base)
    if type(raw.get("num_layers")) is not int:
        older = "lora_layers" in raw
        hint = "An older mlx-lm called it lora_layers: rename that key." if older else _HINT
        raise Problem(str(path), "has no num_layers, which mlx-lm needs", hint).error()
    found = raw.get("lora_parameters")
    given: Mapping[str, Any] = found if isinstance(found, dict) else {}
    rank, scale, dropout = given.get("rank"), given.get("scale"), given.get("dropout")
    if type(rank) is not int or rank < 1:
        raise Problem(
            str(path), f"lora_parameters.rank must be a whole number, not {str(rank)[:_SHOWN]!r}", _HINT
        ).error()
    for key, value in (("scale", scale), ("dropout", dropout)):
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Problem(
                str(path), f"lora_parameters.{key} must be a number, not {str(value)[:_SHOWN]!r}", _HINT
            ).error()
    # PEFT's alpha is the rank times what is called scale here.
    layers = raw["num_layers"]
    return AdapterConfig(
        "LORA", rank, rank * float(scale or 0), _keys(given, path), False, base, use_dora=kind == "dora",
        last_layers=layers if layers > 0 else None,
    )  # fmt: skip


def _keys(parameters: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The modules that mlx-lm adapts, by their names in a layer or in the model; empty for every one of the layers."""
    keys = parameters.get("keys")
    if keys is None:
        return ()
    if not isinstance(keys, list) or not keys or not all(type(key) is str and key for key in keys):
        what = f"lora_parameters.keys must be a list of module names, not {str(keys)[:_SHOWN]!r}"
        raise Problem(str(path), what, _HINT).error()
    return tuple(sorted(keys))


def _modules(header: Header, config: AdapterConfig, weights: Path) -> Iterator[LoraModule]:
    """The adapted modules; none of a full fine-tuning."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in header.tensors.items():
        if match := _LORA.fullmatch(name):
            shapes.setdefault(match["module"], {})[match["side"]] = tensor.shape
    if config.peft_type == "FULL":
        return
    if not shapes:
        raise Problem(str(weights), "contains no LoRA tensors (….lora_a, ….lora_b)", _HINT).error()
    keys = frozenset(config.target_modules)
    for name, sides in sorted(shapes.items()):
        if missing := {"a", "b"} - sides.keys():
            raise Problem(str(weights), f"has no lora_{missing.pop()} for module {name}", _HINT).error()
        if not _is_adapted(name, keys):
            what = f"adapts module {name}, which is not among lora_parameters.keys in {CONFIG_NAME}"
            if not keys:
                what = f"adapts module {name} outside the layers, and {CONFIG_NAME} has no lora_parameters.keys"
            raise Problem(str(weights), what, _HINT).error()
        yield _module(name, sides["a"], sides["b"], config.rank, weights)


def _is_adapted(name: str, keys: Set[str]) -> bool:
    """Whether mlx-lm makes a module of that name one with LoRA weights; if not, it refuses to load them."""
    match = _IN_LIST.search(name)
    if not keys:
        return match is not None
    return name in keys or (match is not None and match["rest"] in keys)


def _module(name: str, a: tuple[int, ...], b: tuple[int, ...], rank: int, weights: Path) -> LoraModule:
    if len(a) not in (2, 3) or len(a) != len(b):
        raise Problem(str(weights), f"module {name}: lora_a {list(a)} and lora_b {list(b)} are not matrices").error()
    # Those of experts are stored as [expert, rank, inputs] and [expert, outputs, rank].
    (inputs, has), outputs = ((a[2], a[1]), b[1]) if len(a) == 3 else (a, b[1])
    if has != rank or (b[0] if len(b) == 2 else b[2]) != rank:
        what = f"module {name}: lora_a {list(a)} and lora_b {list(b)} are not of rank {rank}, as {CONFIG_NAME} says"
        raise Problem(str(weights), what, _HINT).error()
    return LoraModule(name, rank, inputs, outputs, embedding=name.rpartition(".")[2] in _EMBEDDINGS)
