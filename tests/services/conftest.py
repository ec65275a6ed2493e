"""Servers on loopback, a model to serve, and requests that ask for it."""

import json
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison.models.layout import Layout
from garrison.models.names import parse_model
from garrison.models.request import ResolveRequest

sys.path.insert(0, str(Path(__file__).parent))  # the servers beside this file; importlib mode adds no paths

import hub as hub_module
import s3 as s3_module


def weights(count: int, seed: int = 0) -> bytes:
    """A safetensors file with one tensor of `count` bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    block = bytes((n * 7 + seed) % 251 for n in range(251 * 64))
    return struct.pack("<Q", len(header)) + header + (block * (count // len(block) + 1))[:count]


@pytest.fixture
def model_files() -> dict[str, bytes]:
    """A whole model in two shards of 300 kB and 200 kB."""
    shards = {f"model-0000{n}-of-00002.safetensors": weights(size, n) for n, size in ((1, 300_000), (2, 200_000))}
    index = {"metadata": {}, "weight_map": {}}
    return {
        "config.json": b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}',
        "tokenizer.json": b'{"version": "1.0"}',
        "model.safetensors.index.json": json.dumps({**index, "weight_map": {"w": next(iter(shards))}}).encode(),
        **shards,
    }


@pytest.fixture
def hub(model_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_module.Hub]:
    """A hub that has acme/tiny."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with hub_module.Hub() as server:
        server.add("acme/tiny", model_files)
        yield server
    from huggingface_hub import close_session

    close_session()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3_module.S3]:
    with s3_module.S3() as server:
        yield server


@pytest.fixture
def s3(s3_server: s3_module.S3, model_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> s3_module.S3:
    """A store that has the model as models/prefix/tiny/, and nothing else."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, value in s3_module.KEY.items():
        monkeypatch.setenv(name, value)
    s3_server.reset()
    for name, content in model_files.items():
        s3_server.put(f"prefix/tiny/{name}", content)
    return s3_server


Asking = Callable[..., ResolveRequest]


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    """Make a request for a model below `tmp_path/models`."""

    def make(model: str = "acme/tiny", **changes: Any) -> ResolveRequest:
        layout = Layout(root=tmp_path / "models", data_dir=tmp_path / "data")
        return ResolveRequest(model=parse_model(model), layout=layout, **changes)

    return make
