"""Inspect a LoRA adapter directory, and check that its weights match its config.

A server loads an adapter with wrong shapes and answers with garbage, or with an unhelpful 500, so everything that can
be checked without the base model is checked here. Whether it fits a base: `adapters.fit`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from garrison.base.beneath import Tree
from garrison.base.errors import ModelInvalidError
from garrison.models.adapters.module_names import RankPattern, Targets
from garrison.models.adapters.patterns import Allowance, PatternError
from garrison.models.files.content import file_size, json_object
from garrison.models.files.problem import Problem
from garrison.models.formats.safetensors import Header, read_header
from garrison.models.integrity import check_pytorch
from garrison.models.validate import list_files

__all__ = [
    "ADAPTER_FILES",
    "AdapterConfig",
    "AdapterInfo",
    "LoraModule",
    "adapter_digest",
    "inspect_adapter",
    "parse_config",
]

CONFIG_NAME = "adapter_config.json"
_WEIGHT_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTER_FILES = (CONFIG_NAME, *_WEIGHT_NAMES, "new_embeddings.safetensors", "new_embeddings.bin")
"""The files that a server reads from an adapter directory, if they exist. Other files do not count."""
_PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.(?!bias)[^.]+)??(?:\.weight)?")
_VLLM_TENSOR = re.compile(r".+\.(lora_[AB]\.weight|lora_embedding_[AB]|(score|classifier)\.(weight|bias))")
_CLASSIFIERS = ("score", "classifier")
# These initialisations leave the base model unchanged, so the adapter is a plain one.
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_REFUSED_KEYS = ("use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora")
_WRAPPED = ".base_layer"
_SHOWN = 80
_SHOWN_NAMES = 300
_MOST_WARNINGS = 20
_HINT = "Train or export the adapter again, or copy it again."


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
    """The relevant parts of `adapter_config.json`. `target_modules` has one entry if it is a pattern."""

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
    refused_by_vllm: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """An adapter that passed every check that needs no base model.

    Attributes:
        name: of the directory.
        max_rank: the highest of `r`, `rank_pattern` and the tensors: what a server must allow.
        target_modules: sorted; a single pattern if the config has one.
        dtype: of the tensors; `mixed` if they differ, None for a pickle.
        bytes: of the weights file.
        modules: the adapted modules, from the tensors; empty for a pickle.
        refused_by_vllm: why vLLM 0.32 will not load it, one short reason each.
        warnings: harmless oddities.
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
        return adapter_digest(self.path)


def inspect_adapter(path: Path, tree: Tree | None = None) -> AdapterInfo:
    """Read and check the adapter in directory `path`. `tree` as in `content.open_file`.

    Raises:
        ModelInvalidError: not an adapter, an incomplete config, missing or broken weights, or tensors that contradict
            the config. The message names the file.
    """
    if tree is None:
        list_files(path, depth=1)  # raises if it is not a directory, or unreadable
    config = parse_config(json_object(path / CONFIG_NAME, tree), path / CONFIG_NAME)
    sizes = {path / name: file_size(path / name, tree) for name in _WEIGHT_NAMES}
    weights, size = next(((file, size) for file, size in sizes.items() if size is not None), (None, 0))
    if weights is None:
        raise Problem(str(path / _WEIGHT_NAMES[0]), "is missing", _HINT).error()
    if weights.suffix == ".bin":
        check_pytorch(weights, tree)
        unchecked = f"{weights.name} is a pickle: its shapes cannot be checked without running it"
        return _info(path, config, weights, size, None, (), (unchecked,))
    header = read_header(weights, tree)
    rules = _Rules.of(config)
    modules = tuple(_modules(header, rules, weights))
    dtypes = {tensor.dtype for tensor in header.tensors.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else "mixed"
    warnings, refused = (*rules.left_open(), *rules.without_tensors(modules)), tuple(_refused_tensors(header))
    return _info(path, config, weights, header.size, dtype, modules, warnings, refused)


def parse_config(raw: Mapping[str, Any], path: Path) -> AdapterConfig:
    """Parse the config. Pure; `path` is for the message.

    Raises:
        ModelInvalidError: not a LoRA config, or a field is missing or has the wrong type.
    """
    kind = raw.get("peft_type")
    if kind != "LORA":
        what = f"is of type {kind}, not LORA" if isinstance(kind, str) else "has no peft_type"
        raise Problem(str(path), what, "Only LoRA adapters can be served.").error()
    rank, alpha = raw.get("r"), raw.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise _wrong(path, "r", "a whole number of at least 1", rank)
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise _wrong(path, "lora_alpha", "a number", alpha)
    rank_pattern = raw.get("rank_pattern") or {}
    if not isinstance(rank_pattern, dict) or not all(type(r) is int and r > 0 for r in rank_pattern.values()):
        raise _wrong(path, "rank_pattern", "a map from module patterns to ranks", rank_pattern)
    parameters = _names(raw, "target_parameters", path)
    targets = raw.get("target_modules")
    pattern = isinstance(targets, str)
    modules = (targets,) if isinstance(targets, str) else tuple(sorted(_names(raw, "target_modules", path)))
    if not any(modules) and not parameters:
        raise _wrong(path, "target_modules", "a list of module names, or a pattern", targets)
    _check_patterns(rank_pattern, modules, pattern, path)
    base = raw.get("base_model_name_or_path")
    return AdapterConfig(
        peft_type=kind,
        rank=rank,
        alpha=alpha,
        target_modules=modules,
        target_pattern=pattern,
        base_model=base if isinstance(base, str) and base else None,
        rank_pattern=rank_pattern,
        modules_to_save=_names(raw, "modules_to_save", path),
        target_parameters=parameters,
        bias=str(raw.get("bias") or "none"),
        use_dora=raw.get("use_dora") is True,
        use_rslora=raw.get("use_rslora") is True,
        fan_in_fan_out=raw.get("fan_in_fan_out") is True,
        refused_by_vllm=tuple(_refused_features(raw)),
    )


def _check_patterns(rank_pattern: Mapping[str, int], modules: tuple[str, ...], pattern: bool, path: Path) -> None:
    try:
        RankPattern(rank_pattern)
        Targets(modules, pattern=pattern)
    except PatternError as error:
        what = f"has a pattern that cannot be read, {error.pattern[:_SHOWN]!r}: {error}"
        raise Problem(str(path), what, _HINT).error() from None


def adapter_digest(path: Path, tree: Tree | None = None) -> str:
    """SHA-256 over the names and contents of the files that a server reads from the adapter in `path`, as hex.

    Equal for copies in different places; other files, such as a README, do not count. `tree` as in `content.open_file`.

    Raises:
        ModelInvalidError: there is no such file, or one cannot be read.
    """
    import hashlib

    from garrison.models.files.hashing import hash_files

    sizes = {name: file_size(path / name, tree) for name in ADAPTER_FILES}
    present = {name: size for name, size in sizes.items() if size is not None}
    if not present:
        raise Problem(str(path / CONFIG_NAME), "is missing").error()
    digests = hash_files(path, present, tree=tree)
    return hashlib.sha256("".join(f"{name}\0{digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def _info(
    path: Path,
    config: AdapterConfig,
    weights: Path,
    size: int,
    dtype: str | None,
    modules: tuple[LoraModule, ...],
    warnings: tuple[str, ...],
    refused: tuple[str, ...] = (),
) -> AdapterInfo:
    return AdapterInfo(
        name=path.absolute().name,
        path=path,
        config=config,
        weights=weights,
        bytes=size,
        dtype=dtype,
        # vLLM goes by the ranks in the config, whether or not a module has them.
        max_rank=max([config.rank, *config.rank_pattern.values(), *(module.rank for module in modules)]),
        modules=modules,
        refused_by_vllm=config.refused_by_vllm + refused,
        warnings=warnings,
    )


@dataclass(frozen=True, slots=True)
class _Rules:
    """The config, with its patterns ready to match modules until `allowance` is spent."""

    config: AdapterConfig
    targets: Targets
    ranks: RankPattern
    allowance: Allowance

    @classmethod
    def of(cls, config: AdapterConfig) -> Self:
        targets = Targets(config.target_modules, pattern=config.target_pattern)
        return cls(config, targets, RankPattern(config.rank_pattern), Allowance())

    def leave_out(self, module: str) -> bool:
        """Whether the config certainly does not target `module`."""
        return not self.config.target_parameters and self.targets.has(module, self.allowance) is False

    def rank_of(self, module: str) -> int | None:
        """The rank that the config gives to a module; PEFT matches `rank_pattern` with the name of the parameter where
        that is what is adapted."""
        return self.ranks.of(self.parameter_of(module) or module, self.config.rank, self.allowance)

    def parameter_of(self, module: str) -> str | None:
        """The name of the parameter that `module` adapts by `target_parameters`; None for an ordinary module.

        PEFT wraps a module once for each of its parameters: of `experts.gate_up_proj` and `experts.down_proj`, the
        first is called `experts.base_layer` in the file, and the second `experts`.
        """
        owner, depth = module, 0
        while owner.endswith(_WRAPPED):
            owner, depth = owner.removesuffix(_WRAPPED), depth + 1
        split = (name.rpartition(".") for name in self.config.target_parameters)
        names = [own for place, _, own in split if f".{owner}".endswith(f".{place}")]
        names.sort(key=lambda name: name != "gate_up_proj")  # it is the first, in whatever order the config has them
        return f"{owner}.{names[-1 - depth]}" if depth < len(names) else None

    def left_open(self) -> Iterator[str]:
        """What could not be checked, one sentence each."""
        if why := self.targets.undecided:
            yield f"{CONFIG_NAME}: {why}; whether target_modules names every adapted module is unknown"
        if why := self.ranks.undecided:
            yield f"{CONFIG_NAME}: {why}; ranks that rank_pattern may set are taken from the tensors"

    def without_tensors(self, modules: Iterable[LoraModule]) -> Iterator[str]:
        idle = self.targets.without_modules((module.name for module in modules), self.allowance)
        for target in idle[:_MOST_WARNINGS]:
            yield f"{CONFIG_NAME} targets {target}, and no tensor adapts it"
        if len(idle) > _MOST_WARNINGS:
            yield f"{CONFIG_NAME} targets {len(idle) - _MOST_WARNINGS} more, and no tensor adapts them"


def _modules(header: Header, rules: _Rules, weights: Path) -> Iterator[LoraModule]:
    """The adapted modules. Raises for incomplete pairs, for shapes, and for modules that the config does not target."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    embeddings = set()
    for name, tensor in header.tensors.items():
        if match := _LORA.fullmatch(name):
            module = match["module"].removeprefix(_PREFIX)
            shapes.setdefault(module, {})[match["side"]] = tensor.shape
            if match["embedding"]:
                embeddings.add(module)
    if not shapes:
        raise Problem(str(weights), "contains no LoRA tensors (…lora_A.weight, …lora_B.weight)", _HINT).error()
    for module, sides in sorted(shapes.items()):
        if missing := {"A", "B"} - sides.keys():
            raise Problem(str(weights), f"has no lora_{missing.pop()} for module {module}", _HINT).error()
        if rules.leave_out(module):
            named = ", ".join(rules.config.target_modules)[:_SHOWN_NAMES]
            what = f"adapts module {module}, which {CONFIG_NAME} does not target ({named})"
            raise Problem(str(weights), what, _HINT).error()
        yield _module(module, sides["A"], sides["B"], rules, weights, embedding=module in embeddings)


def _module(
    name: str, a: tuple[int, ...], b: tuple[int, ...], rules: _Rules, weights: Path, *, embedding: bool
) -> LoraModule:
    rank, fused = rules.rank_of(name), rules.parameter_of(name) is not None
    # A convolution's lora_A is [rank, in, height, width], and lora_B ends in 1, 1.
    if len(a) < 2 or len(b) < 2:
        raise Problem(str(weights), f"module {name}: lora_A {list(a)} and lora_B {list(b)} are not matrices").error()
    if a[0] != b[1]:
        what = f"module {name}: lora_A {list(a)} and lora_B {list(b)} have different ranks"
        raise Problem(str(weights), what, _HINT).error()
    if rank is None:
        rank = rules.config.rank if fused else a[0]
    # The experts of a fused parameter are stored side by side: rank times their number.
    elif a[0] % rank if fused else a[0] != rank:
        what = f"module {name} has rank {a[0]} in its tensors and {rank} in {CONFIG_NAME}"
        raise Problem(str(weights), what, _HINT).error()
    return LoraModule(name, rank, a[1], b[0], embedding, convolution=len(a) > 2)


def _refused_features(raw: Mapping[str, Any]) -> Iterator[str]:
    """What vLLM 0.32 rejects in a config (`vllm.lora.peft_helper`)."""
    saved = raw.get("modules_to_save")
    if isinstance(saved, list) and (others := [str(name) for name in saved if name not in _CLASSIFIERS]):
        yield f"modules_to_save: {', '.join(others)}"
    if (raw.get("bias") or "none") != "none":
        yield f"bias: {raw['bias']}"
    init = raw.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        yield f"init_lora_weights: {init} changes the base model's weights"
    yield from (key for key in _REFUSED_KEYS if raw.get(key))


def _refused_tensors(header: Header) -> Iterator[str]:
    """Names that vLLM 0.32 cannot read (`vllm.lora.utils.parse_fine_tuned_lora_name`)."""
    unknown = [name for name in header.tensors if not _VLLM_TENSOR.fullmatch(name) and "base_layer" not in name]
    if unknown:
        yield f"{len(unknown)} tensors that are no LoRA matrices, such as {min(unknown)}"


def _names(raw: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = raw.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(type(name) is str and name for name in value):
        raise _wrong(path, key, "a list of names", value)
    return tuple(value)


def _wrong(path: Path, key: str, rule: str, value: Any) -> ModelInvalidError:
    what = f"has no {key}" if value is None else f"{key} must be {rule}, not {str(value)[:_SHOWN]!r}"
    return Problem(str(path), what, _HINT).error()
