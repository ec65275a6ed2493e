"""Adapter directories as vLLM's loader sees them."""

import json
from pathlib import Path

import pytest

from garrison.sim.adapters import AdapterBrokenError, DirectoryAdapters

from .client import write_adapter


def test_digest_follows_the_content(tmp_path: Path) -> None:
    read = DirectoryAdapters().read
    first = read(str(write_adapter(tmp_path / "a", seed=1)))
    assert read(str(write_adapter(tmp_path / "b", seed=1))) == first
    assert read(str(write_adapter(tmp_path / "c", seed=2))).digest != first.digest
    assert first.rank == 8


@pytest.mark.parametrize("missing", ["directory", "config"])
def test_nothing_there(tmp_path: Path, missing: str) -> None:
    if missing == "config":
        (write_adapter(tmp_path / "a") / "adapter_config.json").unlink()
    with pytest.raises(FileNotFoundError):
        DirectoryAdapters().read(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("adapter_config.json", b"{bad", "Expecting property name"),
        ("adapter_config.json", b"[]", "must be a mapping"),
        ("adapter_config.json", b'{"r": 8}', "Missing required configuration fields"),
        ("adapter_config.json", b'{"r": 0, "lora_alpha": 1, "target_modules": []}', "positive integer"),
        ("adapter_config.json", b'{"r": 8, "lora_alpha": 1, "target_modules": [], "use_dora": true}', "DoRA"),
        ("adapter_model.safetensors", b"", "header too small"),
        ("adapter_model.safetensors", b"\xff" * 16, "invalid header length"),
        ("adapter_model.safetensors", b"\x02" + b"\0" * 7 + b"[]", "invalid header"),
        ("adapter_model.safetensors", b"\x02" + b"\0" * 7 + b"{}more", "not fully covered"),
    ],
)
def test_broken(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (write_adapter(tmp_path / "a") / name).write_bytes(content)
    with pytest.raises(AdapterBrokenError, match=words):
        DirectoryAdapters().read(str(tmp_path / "a"))


def test_no_weights(tmp_path: Path) -> None:
    (write_adapter(tmp_path / "a") / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterBrokenError, match="doesn't contain tensors"):
        DirectoryAdapters().read(str(tmp_path / "a"))


def test_other_weight_files(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a")
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    assert DirectoryAdapters().read(str(path)).rank == json.loads((path / "adapter_config.json").read_text())["r"]
