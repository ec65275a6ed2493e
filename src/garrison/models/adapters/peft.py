"""Inspect a PEFT adapter: check that its weights match its config.

A server loads an adapter with wrong shapes and answers with garbage, or with an unhelpful 500, so everything that can
be checked without the base model is checked here. Whether it fits a base: `adapters.fit`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from garrison.base.beneath import Tree
from garrison.models.adapters.adapter import CONFIG_NAME, PEFT_WEIGHTS, AdapterConfig, AdapterInfo, LoraModule
from garrison.models.adapters.module_names import RankPattern, Targets
from garrison.models.adapters.patterns import Allowance
from garrison.models.adapters.peft_config import parse_config
from garrison.models.files.content import file_size, json_object
from garrison.models.files.problem import Problem
from garrison.models.formats.safetensors import Header, read_header
from garrison.models.integrity import check_pytorch

__all__ = ["inspect_peft"]

_PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.(?!bias)[^.]+)??(?:\.weight)?")
_VLLM_TENSOR = re.compile(
    r".+\.(lora_[AB]\.weight|lora_embedding_[AB]|(score|classifier)\.(weight|bias)"
    r"|(embed_tokens|lm_head)\.base_layer\.weight)"
)
# Both parameters of the experts of a layer, in one tensor each: vLLM wants both.
_FUSED, _FUSED_INNER = ".experts.lora_A.weight", ".experts.base_layer.lora_A.weight"
_WRAPPED = ".base_layer"
_TIED = ("lm_head", "embed_tokens")
_SHOWN = 80
_SHOWN_NAMES = 300
_MOST_WARNINGS = 20
_HINT = "Train or export the adapter again, or copy it again."


def inspect_peft(path: Path, tree: Tree | None = None) -> AdapterInfo:
    """Read and check the adapter in directory `path`. `tree` as in `content.open_file`.

    Raises:
        ModelInvalidError: not an adapter, an incomplete config, missing or broken weights, or tensors that contradict
            the config. The message names the file.
    """
    config = parse_config(json_object(path / CONFIG_NAME, tree), path / CONFIG_NAME)
    sizes = {path / name: file_size(path / name, tree) for name in PEFT_WEIGHTS}
    weights, size = next(((file, size) for file, size in sizes.items() if size is not None), (None, 0))
    if weights is None:
        raise Problem(str(path / PEFT_WEIGHTS[0]), "is missing", _HINT).error()
    if weights.suffix != ".safetensors":
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
        if self.config.target_parameters or not self.config.target_modules:
            return False
        if self.config.ties_weights and module.rpartition(".")[2] in _TIED:
            return False
        return self.targets.has(module, self.allowance) is False

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
        split = [name.rpartition(".") for name in self.config.target_parameters]
        names = [own for place, _, own in split if place and f".{owner}".endswith(f".{place}")]
        bare = [own for place, _, own in split if not place]
        if bare and not names and self._may_own_parameters(owner):
            names = bare
        names.sort(key=lambda name: name != "gate_up_proj")  # it is the first, in whatever order the config has them
        return f"{owner}.{names[-1 - depth]}" if depth < len(names) else None

    def _may_own_parameters(self, owner: str) -> bool:
        """Whether `owner`, and not its weight, is what a parameter named without a module belongs to."""
        targeted = self.targets.has(owner, self.allowance)
        return targeted is False or (targeted is None and owner.endswith(".experts"))

    def left_open(self) -> Iterator[str]:
        """What could not be checked, one sentence each."""
        if why := self.targets.undecided:
            yield f"{CONFIG_NAME}: {why}; whether target_modules names every adapted module is unknown"
        if why := self.ranks.undecided:
            yield f"{CONFIG_NAME}: {why}; ranks that rank_pattern may set are taken from the tensors"

    def without_tensors(self, modules: Iterable[LoraModule]) -> Iterator[str]:
        idle = self.targets.without_modules((module.name for module in modules), self.allowance)
        idle = [target for target in idle if target not in self.config.excluded]
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


def _refused_tensors(header: Header) -> Iterator[str]:
    """What vLLM 0.32 cannot read (`vllm.lora.utils.parse_fine_tuned_lora_name`, `_stack_moe_lora_weights`)."""
    unknown = [name for name in header.tensors if not _VLLM_TENSOR.fullmatch(name)]
    if unknown:
        yield f"tensors that are no LoRA matrices ({len(unknown)}), such as {min(unknown)[:_SHOWN_NAMES]}"
    fused = [name.removesuffix(_FUSED) for name in header.tensors if name.endswith(_FUSED)]
    if halves := [place for place in fused if f"{place}{_FUSED_INNER}" not in header.tensors]:
        yield f"{min(halves)[:_SHOWN_NAMES]}.experts: only one of gate_up_proj and down_proj is adapted"
