"""Whether an engine can serve an adapter, and what to do if not: the one judgement for import, serve and fleet."""

from dataclasses import dataclass
from pathlib import Path

from garrison.base.beneath import Tree
from garrison.base.errors import ModelInvalidError
from garrison.models.adapters.adapter import AdapterFormat, AdapterInfo
from garrison.models.adapters.inspect import adapter_formats, inspect_adapter, inspect_as, require_no_other
from garrison.models.files.problem import Problem

__all__ = ["Refusal", "inspect_for", "other_format", "refusal", "serving_engine"]

_READS: dict[str, AdapterFormat] = {"vllm": "peft", "sim": "peft", "llama_cpp": "gguf", "mlx_lm": "mlx"}
_TITLES = {"vllm": "vLLM", "sim": "the simulator", "llama_cpp": "llama.cpp", "mlx_lm": "mlx-lm"}
_ENGINES: dict[AdapterFormat, str] = {"peft": "vllm", "gguf": "llama_cpp", "mlx": "mlx_lm"}
_CALLED: dict[AdapterFormat, str] = {"peft": "PEFT", "gguf": "GGUF", "mlx": "MLX"}
_MERGE = "Merge it into its base model with PEFT (merge_and_unload, then save_pretrained) and serve the result"
_CONVERT: dict[tuple[AdapterFormat, AdapterFormat], str] = {
    ("peft", "gguf"): "Convert it with llama.cpp: convert_lora_to_gguf.py --base BASE_DIRECTORY ADAPTER_DIRECTORY",
    ("peft", "mlx"): f"{_MERGE}, converted with mlx_lm.convert if it is to be quantized",
    ("mlx", "peft"): "Merge it into its base model with mlx_lm.fuse (--dequantize if that is quantized) and serve the "
    "result",
    ("mlx", "gguf"): "Merge it into its base model with mlx_lm.fuse (--dequantize if that is quantized), and convert "
    "the result with llama.cpp: convert_hf_to_gguf.py",
    ("gguf", "peft"): "Name the PEFT adapter that it was converted from",
    ("gguf", "mlx"): "Merge the PEFT adapter that it was converted from into its base model (merge_and_unload)",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an engine does not serve an adapter. `what` is a sentence without its end; `hint` the next step."""

    what: str
    hint: str


def refusal(info: AdapterInfo, engine: str) -> Refusal | None:
    """Why `engine` does not serve the adapter; None if nothing is known against it. Pure.

    Args:
        engine: the name of an engine. What others than those of the registry read is not known.
    """
    wanted = _READS.get(engine)
    if wanted is not None and info.format != wanted:
        return other_format(info.path, info.format, engine)
    if wanted == "peft" and info.refused_by_vllm:
        what = f"{_TITLES[engine]} does not load {info.path}: {'; '.join(info.refused_by_vllm)}"
        return Refusal(what, _ways_out(info.refused_by_vllm))
    return None


def serving_engine(info: AdapterInfo) -> str:
    """The engine that reads adapters of this format."""
    return _ENGINES[info.format]


def inspect_for(engine: str, path: Path, tree: Tree | None = None) -> AdapterInfo:
    """Read and check what `engine` reads of the adapter `path`. `tree` as in `content.open_file`.

    Raises:
        ModelInvalidError: it is not whole, of another format, or has what the engine does not serve. The hint says how
            to convert or merge it.
    """
    formats, wanted = adapter_formats(path, tree), _READS.get(engine)
    if wanted is None:
        return inspect_adapter(path, tree)
    if not formats:
        require_no_other(path, tree)
    elif wanted not in formats:
        raise _error(path, other_format(path, formats[0], engine))
    info = inspect_as(wanted, path, tree)
    if (found := refusal(info, engine)) is not None:
        raise _error(path, found)
    return info


def other_format(path: Path, has: AdapterFormat, engine: str) -> Refusal:
    """The refusal of an adapter in another format than the one that `engine` reads."""
    wanted = _READS[engine]
    article = "an" if has == "mlx" else "a"
    what = f"{path} is {article} {_CALLED[has]} adapter, and {_TITLES[engine]} reads {_CALLED[wanted]} adapters"
    return Refusal(what, f"{_CONVERT[has, wanted]}; or serve it with --engine {_ENGINES[has]}.")


def _ways_out(reasons: tuple[str, ...]) -> str:
    if all(reason.startswith("init_lora_weights") for reason in reasons):
        return (
            "Convert it to a plain LoRA adapter with PEFT: save_pretrained(DIRECTORY, "
            "path_initial_model_for_weight_conversion=INITIAL_ADAPTER); or merge it into its base model "
            "(merge_and_unload) and serve the result."
        )
    return f"{_MERGE}, or train it as a plain LoRA adapter."


def _error(path: Path, found: Refusal) -> ModelInvalidError:
    error = Problem(str(path), found.what, found.hint).error()
    return ModelInvalidError(found.what, hint=found.hint, details=error.details)
