"""Inspect an adapter in a GGUF file, as `convert_lora_to_gguf.py` of llama.cpp writes it."""

import re
from collections.abc import Iterator
from pathlib import Path

from garrison.base.beneath import Tree
from garrison.base.errors import ModelInvalidError
from garrison.models.adapters.adapter import AdapterConfig, AdapterInfo, LoraModule
from garrison.models.files.problem import Problem
from garrison.models.formats.gguf import GgufHeader, read_gguf

__all__ = ["inspect_gguf", "is_gguf_adapter"]

_LORA = re.compile(r"(?P<module>.+)\.weight\.lora_(?P<side>[ab])", re.DOTALL)
_HINT = "Convert the adapter again, or copy it again."


def inspect_gguf(file: Path, tree: Tree | None = None) -> AdapterInfo:
    """Read and check the adapter in `file`. `tree` as in `content.open_file`.

    Raises:
        ModelInvalidError: missing, broken, not an adapter, or without whole pairs of LoRA tensors.
    """
    header = read_gguf(file, tree)
    if not _is_adapter(header):
        raise Problem(
            str(file), "is a GGUF file and no LoRA adapter", "Convert one with convert_lora_to_gguf.py."
        ).error()
    modules = tuple(_modules(header, file))
    architecture, alpha = header.metadata.get("general.architecture"), header.metadata.get("adapter.lora.alpha")
    base = header.metadata.get("general.base_model.0.name")
    rank = max(module.rank for module in modules)
    return AdapterInfo(
        name=file.absolute().name.removesuffix(".gguf"),
        path=file,
        config=AdapterConfig(
            "LORA", rank, float(alpha) if isinstance(alpha, int | float) else 0.0, (), False,
            base if isinstance(base, str) and base else None,
        ),
        weights=file,
        bytes=header.size,
        dtype=None,
        max_rank=rank,
        modules=modules,
        architecture=architecture if isinstance(architecture, str) else None,
        format="gguf",
    )  # fmt: skip


def is_gguf_adapter(file: Path, tree: Tree | None = None) -> bool:
    """Whether `file` is a GGUF file that says it is an adapter. False where it cannot be read."""
    try:
        return _is_adapter(read_gguf(file, tree))
    except ModelInvalidError:
        return False


def _is_adapter(header: GgufHeader) -> bool:
    return header.metadata.get("general.type") == "adapter" and header.metadata.get("adapter.type") == "lora"


def _modules(header: GgufHeader, file: Path) -> Iterator[LoraModule]:
    """GGUF gives the inputs of a matrix first, so `lora_a` is [inputs, rank] and `lora_b` [rank, outputs]."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in header.shapes.items():
        if match := _LORA.fullmatch(name):
            shapes.setdefault(match["module"], {})[match["side"]] = shape
    if not shapes:
        raise Problem(str(file), "contains no LoRA tensors (….weight.lora_a, ….weight.lora_b)", _HINT).error()
    for name, sides in sorted(shapes.items()):
        if missing := {"a", "b"} - sides.keys():
            raise Problem(str(file), f"has no lora_{missing.pop()} for {name}", _HINT).error()
        a, b = sides["a"], sides["b"]
        if len(a) < 2 or len(b) < 2:
            raise Problem(str(file), f"{name}: lora_a {list(a)} and lora_b {list(b)} are not matrices", _HINT).error()
        embedding = name == "token_embd"  # whose lora_a is [rank, tokens]
        inputs, rank = (a[1], a[0]) if embedding else (a[0], a[1])
        if rank != b[0]:
            what = f"{name}: lora_a {list(a)} and lora_b {list(b)} have different ranks"
            raise Problem(str(file), what, _HINT).error()
        yield LoraModule(name, rank, inputs, b[1], embedding)
