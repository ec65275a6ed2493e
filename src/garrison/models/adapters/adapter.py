"""What is known about a LoRA adapter, as values; which files make it up; and the digest of these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from garrison.base.beneath import Tree
from garrison.models.files.content import file_size
from garrison.models.files.problem import Problem

__all__ = [
    "ADAPTER_FILES",
    "CONFIG_NAME",
    "MLX_WEIGHTS",
    "PEFT_WEIGHTS",
    "AdapterConfig",
    "AdapterFormat",
    "AdapterInfo",
    "LoraModule",
    "adapter_digest",
]

AdapterFormat = Literal["peft", "gguf", "mlx"]
"""PEFT's directory, as vLLM reads it; a GGUF file for llama.cpp; the directory of mlx-lm's trainer."""

CONFIG_NAME = "adapter_config.json"
PEFT_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")
"""In the order in which vLLM looks for them."""
MLX_WEIGHTS = "adapters.safetensors"
ADAPTER_FILES = (CONFIG_NAME, *PEFT_WEIGHTS, "new_embeddings.safetensors", "new_embeddings.bin")
"""The files that vLLM reads from an adapter directory, if they exist. Other files do not count."""


@dataclass(frozen=True, slots=True)
class LoraModule:
    """One adapted module. `name` is the name in the base model; sizes are features in and out."""

    name: str
    rank: int
    inputs: int
    outputs: int
    embedding: bool = False
    convolution: bool = False


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The relevant parts of a PEFT `adapter_config.json`, or what another format says of the same.

    `target_modules` has one entry if it is a pattern; empty where the format does not name any. `excluded` are modules
    that it names and that are left out. `ties_weights`: embeddings and output layer are adapted together, and only one
    of them is named. `last_layers`: mlx-lm adapts only so many, counted from the last; None for all.
    """

    peft_type: str
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    target_pattern: bool
    base_model: str | None
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    modules_to_save: tuple[str, ...] = ()
    target_parameters: tuple[str, ...] = ()
    bias: str = "none"
    use_dora: bool = False
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    excluded: tuple[str, ...] = ()
    ties_weights: bool = False
    last_layers: int | None = None
    refused_by_vllm: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """An adapter that passed every check that needs no base model.

    Attributes:
        name: of the directory, or of a GGUF file without its suffix.
        path: the directory, or the GGUF file if that was named.
        max_rank: the highest of `r`, `rank_pattern` and the tensors: what a server must allow.
        target_modules: sorted; a single pattern if the config has one.
        dtype: of the tensors; `mixed` if they differ, None for a pickle.
        bytes: of the weights file.
        modules: the adapted modules, from the tensors; empty for a pickle. Names are those of the base in its format.
        refused_by_vllm: why vLLM 0.32 will not load it, one short reason each.
        warnings: harmless oddities.
        architecture: of the base, as GGUF calls it; None in other formats.
    """

    name: str
    path: Path
    config: AdapterConfig
    weights: Path
    bytes: int
    dtype: str | None
    max_rank: int
    modules: tuple[LoraModule, ...] = ()
    refused_by_vllm: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    format: AdapterFormat = "peft"
    architecture: str | None = None

    @property
    def peft_type(self) -> str:
        return self.config.peft_type

    @property
    def rank(self) -> int:
        return self.config.rank

    @property
    def alpha(self) -> float:
        return self.config.alpha

    @property
    def target_modules(self) -> tuple[str, ...]:
        return self.config.target_modules

    @property
    def base_model(self) -> str | None:
        return self.config.base_model

    def digest(self) -> str:
        if self.format == "peft":
            return adapter_digest(self.path)
        names = (self.weights.name,) if self.format == "gguf" else (CONFIG_NAME, self.weights.name)
        return adapter_digest(self.weights.parent, names=names)


def adapter_digest(path: Path, tree: Tree | None = None, *, names: Sequence[str] = ADAPTER_FILES) -> str:
    """SHA-256 over the names and contents of the files that a server reads from the adapter in `path`, as hex.

    Equal for copies in different places; other files, such as a README, do not count. `tree` as in `content.open_file`.

    Raises:
        ModelInvalidError: there is no such file, or one cannot be read.
    """
    import hashlib

    from garrison.models.files.hashing import hash_files

    sizes = {name: file_size(path / name, tree) for name in names}
    present = {name: size for name, size in sizes.items() if size is not None}
    if not present:
        raise Problem(str(path / names[0]), "is missing").error()
    digests = hash_files(path, present, tree=tree)
    return hashlib.sha256("".join(f"{name}\0{digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()
