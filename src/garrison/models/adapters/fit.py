"""Check whether an adapter fits a base model: its sizes against the base's tensors, or its config.

vLLM answers 200 to an adapter of the wrong shape and serves garbage, so this is checked before loading. Only what is
certain is a misfit. What cannot be read (packed weights, pickles, modules under unknown names) proves nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garrison.models.adapters.adapter import AdapterInfo, LoraModule
from garrison.models.adapters.base_modules import BaseModules, Shape, lists_in, module_path
from garrison.models.config import read_config
from garrison.models.formats.gguf import GgufHeader, read_gguf
from garrison.models.integrity import check_weights
from garrison.models.validate import validate_model

__all__ = ["Base", "Fit", "check_against_base", "check_modules", "read_base"]

# Types whose tensors have the shape of their matrix. Integers hold packed values: several in one, or in other rows.
_PLAIN_TYPES = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
# Architectures whose language model has the sizes that `_from_config` computes, in every layer.
_LLAMA_LIKE = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"}
_MOST_DIGITS = 9  # Python refuses to convert numbers of several thousand digits


@dataclass(frozen=True, slots=True)
class Base:
    """A base model: its config, and its tensors; without any if they are pickles. `architecture`: of a GGUF."""

    config: Mapping[str, Any]
    modules: BaseModules
    architecture: str | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """Attributes:
    problems: what certainly does not fit, a sentence each.
    untold: what could not be compared, a sentence each.
    """

    problems: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()


def read_base(path: Path) -> Base:
    """Config and tensors of the model in `path`, a directory or a GGUF file, from its config and headers.

    Raises:
        ModelInvalidError: it is not a whole model.
    """
    files = validate_model(path, skip_tokenizer=True, allow_gguf=path.suffix == ".gguf")
    if files.path == path and files.config is None:
        return _gguf_base([read_gguf(weights) for weights in files.weights])
    headers = check_weights(files)
    tensors = {
        name: tensor.shape if tensor.dtype in _PLAIN_TYPES else None
        for weights in files.weights
        if weights in headers
        for name, tensor in headers[weights].tensors.items()
    }
    return Base(read_config(files), BaseModules.of(tensors))


def _gguf_base(headers: Sequence[GgufHeader]) -> Base:
    tensors: dict[str, Shape | None] = {
        name: tuple(reversed(shape)) for header in headers for name, shape in header.shapes.items()
    }
    architecture = headers[0].metadata.get("general.architecture")
    return Base({}, BaseModules.of(tensors), architecture if isinstance(architecture, str) else None)


def check_against_base(adapter: AdapterInfo, base: Base) -> Fit:
    """Compare an adapter with its base. Nothing is said about a pickle, whose modules are not known. Pure."""
    if adapter.architecture and base.architecture and adapter.architecture != base.architecture:
        return Fit((f"it is made for the architecture {adapter.architecture}, and the model is {base.architecture}",))
    fit = check_modules(
        adapter.modules,
        base,
        transposed=adapter.config.fan_in_fan_out,
        parameters=adapter.config.target_parameters,
    )
    return Fit((*fit.problems, *_in_earlier_layers(adapter, base), *_of_multimodal_models(adapter, base)), fit.untold)


def check_modules(
    modules: Sequence[LoraModule], base: Base, *, transposed: bool = False, parameters: Iterable[str] = ()
) -> Fit:
    """Compare adapted modules with a base. Pure.

    Args:
        transposed: the base's matrices are inputs by outputs.
        parameters: PEFT's `target_parameters`, by their names in the model.
    """
    comparison = _Comparison(base, transposed, frozenset(name.rpartition(".")[2] for name in parameters))
    problems = tuple(problem for module in modules for problem in comparison.problems(module))
    return Fit(problems, tuple(comparison.untold(len(modules))))


def _in_earlier_layers(adapter: AdapterInfo, base: Base) -> Iterator[str]:
    """The modules in layers before the last ones that mlx-lm adapts.

    By the config's number of layers: a checkpoint may have more, for the prediction of several tokens, which mlx-lm
    drops.
    """
    last, layers = adapter.config.last_layers, _sizes_in(base.config).get("num_hidden_layers")
    if last is None or type(layers) is not int:
        return
    for module in adapter.modules:
        place, number = next(lists_in(module_path(module.name)), ("", ""))
        if place != "layers" or len(number) > _MOST_DIGITS or module.name in adapter.config.target_modules:
            continue
        if int(number) < layers - last:
            which = f"layer{'s' if last > 1 else ''}, by num_layers in its config"
            yield f"{module.name} is in layer {number} of {layers}, and mlx-lm adapts the last {last} {which}"


def _of_multimodal_models(adapter: AdapterInfo, base: Base) -> Iterator[str]:
    """The modules whose names vLLM does not have in a text model: it passes over them, and serves the base alone."""
    kind = base.config.get("model_type")
    if adapter.format != "peft" or kind not in _LLAMA_LIKE or "text_config" in base.config:
        return
    for module in adapter.modules:
        if "language_model" in module.name.split("."):
            yield f"{module.name} is a module of a multimodal model, and the base model is one of text alone ({kind})"


def _sizes_in(config: Mapping[str, Any]) -> dict[str, Any]:
    text = config.get("text_config")
    return dict(config) | (text if isinstance(text, dict) else {})


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Features in and out that the base has; None where they are not known. `unordered`: either may come first."""

    inputs: int | None
    outputs: int | None
    unordered: bool = False

    def fit(self, module: LoraModule) -> bool:
        if self.unordered:
            return {module.inputs, module.outputs} == {self.inputs, self.outputs}
        return self.inputs in (None, module.inputs) and self.outputs in (None, module.outputs)

    def differences(self, module: LoraModule) -> Iterator[str]:
        if self.unordered:
            sizes = f"{module.inputs} inputs and {module.outputs} outputs"
            yield f"{module.name} has {sizes}, and the base model has {self.inputs} and {self.outputs}"
            return
        for what, has, wants in (("inputs", module.inputs, self.inputs), ("outputs", module.outputs, self.outputs)):
            if wants is not None and has != wants:
                yield f"{module.name} has {has} {what}, and the base model has {wants}"


class _Comparison:
    def __init__(self, base: Base, transposed: bool, parameters: frozenset[str]) -> None:
        self._base = base.modules
        self._transposed = transposed
        self._parameters = parameters
        self._sizes = _sizes_in(base.config)
        self._packing = _packing(base.config)
        self._packed = 0
        self._unknown: list[str] = []

    def problems(self, module: LoraModule) -> Iterator[str]:
        path = module_path(module.name)
        if self._base.shapes:
            missing = self._missing_number(path)
            yield from [f"{module.name} {missing}"] if missing else self._compared(module, path)
        elif self._packing is None and self._sizes.get("model_type") in _LLAMA_LIKE:
            yield from self._by_config(module, path)
        else:
            self._unknown.append(module.name)

    def untold(self, total: int) -> Iterator[str]:
        if self._packed:
            how = f" ({self._packing})" if self._packing else ""
            yield f"whether {self._packed} of {total} modules fit cannot be told for packed weights{how}"
        if self._unknown:
            where = "its tensors have no such names" if self._base.shapes else "its tensors cannot be read"
            example = f"for example {min(self._unknown)[:100]}"
            yield f"whether {len(self._unknown)} of {total} modules fit the base cannot be told: {where}, {example}"

    def _missing_number(self, path: str) -> str | None:
        for place, number in lists_in(path):
            known = self._base.numbers.get(place)
            # What is missing within a list has no tensors of its own, as the halves of a pair that shares its weights.
            if known is not None and number not in known and _is_beyond(number, known):
                kind = "expert" if place.endswith("experts") else "layer"
                count = f"{len(known)} {kind}{'s' if len(known) > 1 else ''}"
                return f"is in {kind} {number[:_MOST_DIGITS]}, and the base model has {count} there"
        return None

    def _compared(self, module: LoraModule, path: str) -> Iterator[str]:
        shapes = list(self._shapes(path))
        wanted = [self._sizes_of(module, shape) for shape in shapes if shape is not None and len(shape) > 1]
        if any(sizes.fit(module) for sizes in wanted):
            return
        if None in shapes or (not shapes and self._base.has_packed(path.removesuffix(".base_layer"))):
            self._packed += 1
        elif not wanted:
            self._unknown.append(module.name)
        else:
            yield from wanted[0].differences(module)

    def _shapes(self, path: str) -> Iterator[Shape | None]:
        """The shapes of what a module may adapt: its weight, or one of its parameters if it has several."""
        yield from self._base.shapes.get(f"{path}.weight", ())
        owner = path
        while owner.endswith(".base_layer"):  # PEFT wraps a module once for each parameter
            owner = owner.removesuffix(".base_layer")
        for name in self._parameters - {"weight"}:
            yield from self._base.shapes.get(f"{owner}.{name}", ())
        if (experts := self._base.numbers.get(owner)) is not None:
            yield from self._of_separate_experts(f"{owner}.{min(experts)}")

    def _of_separate_experts(self, expert: str) -> Iterator[Shape | None]:
        """The shapes that the experts have in one tensor, where the checkpoint has a module for each: `gate_up_proj`
        with the rows of two, and `down_proj`. Of packed experts None."""
        shapes = [
            None if shape is None else (1, rows * shape[0], *shape[1:])
            for name, rows in (("up_proj", 2), ("w3", 2), ("down_proj", 1), ("w2", 1))
            for shape in self._base.shapes.get(f"{expert}.{name}.weight", ())
        ]
        yield from shapes or [None]

    def _sizes_of(self, module: LoraModule, shape: Shape) -> _Sizes:
        if module.convolution:
            return _Sizes(None, shape[0])  # of a grouped convolution, the inputs are not in the shape
        if len(shape) > 2:
            # The experts of a layer in one tensor: architectures differ in which side comes first.
            return _Sizes(shape[1], shape[2], unordered=True)
        rows, columns = shape
        return _Sizes(rows, columns) if module.embedding or self._transposed else _Sizes(columns, rows)

    def _by_config(self, module: LoraModule, path: str) -> Iterator[str]:
        layers = self._sizes.get("num_hidden_layers")
        place, number = next(lists_in(path), ("", ""))
        if place == "layers" and type(layers) is int and 0 < len(number) <= _MOST_DIGITS and int(number) >= layers:
            yield f"{module.name} is in layer {number}, and the base model has {layers} layers"
        elif place == "layers" or not place:
            yield from _by_llama(path, self._sizes).differences(module)


def _is_beyond(number: str, known: Iterable[str]) -> bool:
    """Whether it is larger than all numbers of a list. By their digits: Python converts no number of thousands."""

    def size(text: str) -> tuple[int, str]:
        digits = text.lstrip("0")
        return len(digits), digits

    return size(number) > max(map(size, known))


def _by_llama(path: str, sizes: Mapping[str, Any]) -> _Sizes:
    """The sizes that follow from the config of a Llama; unknown for modules that not all of its kind have."""

    def size(key: str) -> int | None:
        value = sizes.get(key)
        return value if type(value) is int and value > 0 else None

    hidden, heads, intermediate = size("hidden_size"), size("num_attention_heads"), size("intermediate_size")
    head = size("head_dim") or (hidden // heads if hidden and heads else None)
    key_value_heads = size("num_key_value_heads") or heads
    attention = heads * head if heads and head else None
    key_value = key_value_heads * head if key_value_heads and head else None
    known = {
        "self_attn.q_proj": (hidden, attention),
        "self_attn.k_proj": (hidden, key_value),
        "self_attn.v_proj": (hidden, key_value),
        "self_attn.o_proj": (attention, hidden),
        "mlp.gate_proj": (hidden, intermediate),
        "mlp.up_proj": (hidden, intermediate),
        "mlp.down_proj": (intermediate, hidden),
        "lm_head": (hidden, size("vocab_size")),
        "embed_tokens": (size("vocab_size"), hidden),
    }
    module = path.split(".", 2)[2] if path.startswith("layers.") else path
    return _Sizes(*known.get(module, (None, None)))


def _packing(config: Mapping[str, Any]) -> str | None:
    """How the config says that weights are packed, in a word; None if it does not."""
    for key in ("quantization_config", "quantization"):
        if isinstance(found := config.get(key), dict):
            method = found.get("quant_method")
            return method if isinstance(method, str) and method else "quantized"
    return None
