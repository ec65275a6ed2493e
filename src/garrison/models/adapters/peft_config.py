"""The config of a PEFT adapter, and what of it vLLM does not serve. Pure."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from garrison.base.errors import ModelInvalidError
from garrison.models.adapters.adapter import AdapterConfig
from garrison.models.adapters.module_names import RankPattern, Targets
from garrison.models.adapters.patterns import PatternError
from garrison.models.files.problem import Problem

__all__ = ["parse_config"]

_CLASSIFIERS = ("score", "classifier")
# These initialisations leave the base model unchanged, so the adapter is a plain one.
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_REFUSED_KEYS = ("use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora")
_SHOWN = 80
_HINT = "Train or export the adapter again, or copy it again."


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
    # vLLM goes by the tensors, and requires the key alone.
    if "target_modules" not in raw or (targets is not None and not any(modules) and not parameters):
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
        excluded=_excluded(raw.get("exclude_modules")),
        ties_weights=raw.get("ensure_weight_tying") is True,
        refused_by_vllm=tuple(_refused_features(raw)),
    )


def _excluded(value: Any) -> tuple[str, ...]:
    """Of `exclude_modules` a list; a pattern excludes what nobody is told of."""
    return tuple(name for name in value if isinstance(name, str)) if isinstance(value, list) else ()


def _check_patterns(rank_pattern: Mapping[str, int], modules: tuple[str, ...], pattern: bool, path: Path) -> None:
    try:
        RankPattern(rank_pattern)
        Targets(modules, pattern=pattern)
    except PatternError as error:
        what = f"has a pattern that cannot be read, {error.pattern[:_SHOWN]!r}: {error}"
        raise Problem(str(path), what, _HINT).error() from None


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
