"""Small models and adapters, written from nothing with the standard library."""

import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import pytest

Shapes = Mapping[str, Sequence[int]]

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "vocab_size": 64,
    "max_position_embeddings": 2048,
}
WEIGHTS: Shapes = {
    "model.embed_tokens.weight": (64, 16),
    **{f"model.layers.{n}.self_attn.q_proj.weight": (16, 16) for n in range(2)},
    **{f"model.layers.{n}.self_attn.v_proj.weight": (8, 16) for n in range(2)},
    "lm_head.weight": (64, 16),
}


class Make:
    """Builders; each writes and returns the path it was given."""

    config = CONFIG
    weights = WEIGHTS

    def safetensors(self, path: Path, shapes: Shapes = WEIGHTS, *, dtype: str = "BF16", size: int = 2) -> Path:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, shape in shapes.items():
            length = size
            for n in shape:
                length *= n
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + length]}
            offset += length
        return self.raw_safetensors(path, header, bytes(n % 251 for n in range(offset)))

    def raw_safetensors(self, path: Path, header: Any, content: bytes = b"") -> Path:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content)
        return path

    def model(self, path: Path, *, shards: int = 1, config: Mapping[str, Any] | None = None) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(config or CONFIG))
        (path / "tokenizer.json").write_text("{}")
        if shards == 1:
            self.safetensors(path / "model.safetensors")
            return path
        weight_map = {}
        for number in range(shards):
            file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
            part = {name: shape for n, (name, shape) in enumerate(WEIGHTS.items()) if n % shards == number}
            self.safetensors(path / file, part)
            weight_map |= dict.fromkeys(part, file)
        self.index(path / "model.safetensors.index.json", weight_map)
        return path

    def index(self, path: Path, weight_map: Mapping[str, str]) -> Path:
        path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
        return path

    def hub_snapshot(
        self, hub: Path, model_id: str = "acme/tiny", revision: str = "a" * 40, *, shards: int = 1
    ) -> Path:
        """A hub cache: links into blobs that are named by their digests, as huggingface_hub writes them."""
        import hashlib

        repository = hub / ("models--" + model_id.replace("/", "--"))
        whole = self.model(repository / "made", shards=shards)
        snapshot = repository / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (repository / "blobs").mkdir()
        for file in sorted(whole.iterdir()):
            content = file.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            digest = hashlib.sha256(content).hexdigest() if file.suffix == ".safetensors" else git
            (repository / "blobs" / digest).write_bytes(content)
            (snapshot / file.name).symlink_to(Path("../../blobs") / digest)
            file.unlink()
        whole.rmdir()
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(revision)
        return snapshot

    def adapter(
        self, path: Path, *, rank: int = 4, shapes: Shapes | None = None, hidden: int = 16, **config: Any
    ) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        written = {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "v_proj"],
            "base_model_name_or_path": "acme/tiny",
            "bias": "none",
        } | config
        written = {key: value for key, value in written.items() if value is not ...}
        (path / "adapter_config.json").write_text(json.dumps(written))
        self.safetensors(path / "adapter_model.safetensors", shapes or self.lora_shapes(rank, hidden))
        return path

    def lora_shapes(self, rank: int = 4, hidden: int = 16) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(2):
            for module, outputs in (("q_proj", hidden), ("v_proj", hidden // 2)):
                name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                shapes[f"{name}.lora_A.weight"] = (rank, hidden)
                shapes[f"{name}.lora_B.weight"] = (outputs, rank)
        return shapes

    def mlx_adapter(self, path: Path, *, shapes: Shapes | None = None, rank: int = 4, **config: Any) -> Path:
        """An adapter as mlx_lm.lora writes it; a value of `...` leaves a key of the config out."""
        path.mkdir(parents=True, exist_ok=True)
        written = {
            "fine_tune_type": "lora",
            "model": "acme/tiny",
            "num_layers": 2,
            "lora_parameters": {"rank": rank, "scale": 20.0, "dropout": 0.0},
        } | config
        (path / "adapter_config.json").write_text(json.dumps({k: v for k, v in written.items() if v is not ...}))
        name = "model.layers.0.self_attn.q_proj"
        made = shapes or {f"{name}.lora_a": (16, rank), f"{name}.lora_b": (rank, 16)}
        self.safetensors(path / "adapters.safetensors", made, dtype="F32", size=4)
        return path

    def gguf_adapter(self, path: Path, shapes: Shapes | None = None, *, architecture: str = "llama") -> Path:
        """A LoRA adapter in a GGUF file. Shapes are in GGUF's order: inputs first."""
        name = "blk.0.attn_q.weight"
        keys = {"general.type": "adapter", "general.architecture": architecture, "adapter.type": "lora"}
        return self.raw_gguf(path, keys, shapes or {f"{name}.lora_a": (16, 4), f"{name}.lora_b": (4, 16)})

    def raw_gguf(self, path: Path, words: Mapping[str, str], shapes: Shapes) -> Path:
        """A GGUF file of F32 tensors."""

        def text(value: str) -> bytes:
            return struct.pack("<Q", len(value)) + value.encode()

        head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(words))
        for key, value in words.items():
            head += text(key) + struct.pack("<I", 8) + text(value)
        offset = 0
        for name, shape in shapes.items():
            head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
            offset += -(-4 * prod(shape) // 32) * 32
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(head + bytes(-len(head) % 32 + offset))
        return path

    def gguf(self, path: Path, *, tensors: int = 1, missing: int = 0, **metadata: str | int) -> Path:
        """A GGUF with the metadata of a Llama and F32 tensors of 4 x 8; `missing` bytes are left away at the end.
        `metadata`: further keys, with `__` for a dot."""

        def text(value: str) -> bytes:
            return struct.pack("<Q", len(value)) + value.encode()

        def word(key: str, value: int) -> bytes:
            return text(key) + struct.pack("<II", 4, value)

        tokens = text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + text("a") + text("b") + text("c")
        keys = [
            text("general.architecture") + struct.pack("<I", 8) + text("llama"),
            word("llama.context_length", 2048),
            word("general.file_type", 15),
            tokens,
        ]
        for name, value in metadata.items():
            key = name.replace("__", ".")
            keys.append(word(key, value) if isinstance(value, int) else text(key) + struct.pack("<I", 8) + text(value))
        head = b"GGUF" + struct.pack("<IQQ", 3, tensors, len(keys)) + b"".join(keys)
        for number in range(tensors):
            head += text(f"blk.{number}.weight") + struct.pack("<IQQIQ", 2, 4, 8, 0, number * 128)
        head += bytes(-len(head) % 32)
        whole = head + bytes(128 * tensors)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole[: len(whole) - missing])
        return path


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def cut() -> Callable[[Path, int], None]:
    """Take that many bytes off the end of a file."""

    def cut(path: Path, count: int) -> None:
        os.truncate(path, path.stat().st_size - count)

    return cut
