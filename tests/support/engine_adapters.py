"""LoRA adapters for the tiny Llama, in the format of each engine, from the same matrices."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tiny_model
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Pairs = Mapping[str, tuple[Matrix, Matrix]]
"""`0.self_attn.q_proj` to lora_A as [rank, inputs] and lora_B as [outputs, rank]."""

_GGUF = {"self_attn.q_proj": "attn_q", "self_attn.v_proj": "attn_v"}


def pairs(*, layers: Iterable[int] = (0, 1), width: int = tiny_model.HIDDEN, rank: int = 8, seed: int = 1) -> Pairs:
    """Random matrices for q_proj and v_proj of some layers, strong enough to change every answer."""
    random = np.random.default_rng(seed)

    def matrix(*shape: int) -> Matrix:
        return random.normal(0, 0.5, shape).astype(np.float32)

    names = [f"{layer}.{module}" for layer in layers for module in _GGUF]
    return {name: (matrix(rank, width), matrix(tiny_model.HIDDEN, rank)) for name in names}


def peft(directory: Path, made: Pairs, *, prefix: str = "base_model.model.model.layers", **config: Any) -> Path:
    """A directory as PEFT saves it. `config` replaces keys of the config."""
    rank = next(iter(made.values()))[0].shape[0]
    tensors: dict[str, Matrix] = {}
    for name, (a, b) in made.items():
        tensors |= {f"{prefix}.{name}.lora_A.weight": a, f"{prefix}.{name}.lora_B.weight": b}
    written = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "acme/tiny", "bias": "none",
        "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj", "v_proj"],
    }  # fmt: skip
    return _directory(directory, "adapter_model.safetensors", tensors, written | config)


def mlx(directory: Path, made: Pairs, *, num_layers: int = tiny_model.LAYERS, **parameters: Any) -> Path:
    """A directory as mlx_lm.lora writes it. `parameters` are added to `lora_parameters`."""
    rank = next(iter(made.values()))[0].shape[0]
    tensors: dict[str, Matrix] = {}
    for name, (a, b) in made.items():
        tensors |= {f"model.layers.{name}.lora_a": a.T, f"model.layers.{name}.lora_b": b.T}
    config = {
        "fine_tune_type": "lora", "model": "acme/tiny", "num_layers": num_layers,
        "lora_parameters": {"rank": rank, "scale": 2.0, "dropout": 0.0} | parameters,
    }  # fmt: skip
    return _directory(directory, "adapters.safetensors", tensors, config)


def gguf(file: Path, made: Pairs, *, architecture: str = "llama") -> Path:
    """A file as convert_lora_to_gguf.py of llama.cpp writes it."""
    import gguf as library

    file.parent.mkdir(parents=True, exist_ok=True)
    writer = library.GGUFWriter(file, architecture)
    writer.add_type(library.GGUFType.ADAPTER)
    writer.add_string(library.Keys.Adapter.TYPE, "lora")
    writer.add_float32(library.Keys.Adapter.LORA_ALPHA, 2.0 * next(iter(made.values()))[0].shape[0])
    for name, (a, b) in made.items():
        layer, module = name.split(".", 1)
        for side, matrix in (("a", a), ("b", b)):
            writer.add_tensor(f"blk.{layer}.{_GGUF[module]}.weight.lora_{side}", matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _directory(directory: Path, weights: str, tensors: Mapping[str, Matrix], config: Mapping[str, Any]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    tiny_model.write_safetensors(directory / weights, tensors)
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory
