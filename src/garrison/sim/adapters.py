"""Read an adapter's files: the simulator's only access to the disk."""

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["AdapterBrokenError", "AdapterReader", "AdapterWeights", "DirectoryAdapters"]


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """The result of a read: the digest of configuration and weights, and the rank."""

    digest: str
    rank: int


class AdapterBrokenError(Exception):
    """The files exist and vLLM's loader rejects them, with this message."""


class AdapterReader(Protocol):
    def read(self, path: str) -> AdapterWeights:
        """Read the adapter at `path`, now.

        Raises:
            FileNotFoundError: there is no adapter.
            AdapterBrokenError: there is one and it cannot be loaded.
        """


class DirectoryAdapters:
    """Adapter directories on disk. Like vLLM, it checks the rank and the consistency of the file, but not whether the
    shapes fit the base model."""

    def read(self, path: str) -> AdapterWeights:
        directory = Path(path)
        raw = (directory / "adapter_config.json").read_bytes()
        rank = _rank(raw)
        digest = hashlib.sha256(raw)
        for name in ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt"):
            file = directory / name
            if file.is_file():
                content = file.read_bytes()
                if name.endswith(".safetensors"):
                    _check_safetensors(content)
                digest.update(content)
                return AdapterWeights(digest.hexdigest(), rank)
        raise AdapterBrokenError(f"{os.fspath(directory)} doesn't contain tensors")


def _rank(raw: bytes) -> int:
    try:
        config: Any = json.loads(raw)
    except ValueError as error:
        raise AdapterBrokenError(str(error)) from None
    if not isinstance(config, dict):
        raise AdapterBrokenError("PEFTHelper argument after ** must be a mapping")
    if missing := [key for key in ("r", "lora_alpha", "target_modules") if key not in config]:
        raise AdapterBrokenError(f"Missing required configuration fields: {missing}")
    rank = config["r"]
    if not isinstance(rank, int) or rank <= 0:
        raise AdapterBrokenError(f"LoRA rank `r` must be a positive integer, got {rank}.")
    if config.get("use_dora"):
        raise AdapterBrokenError("vLLM does not yet support DoRA.")
    return rank


def _check_safetensors(content: bytes) -> None:
    if len(content) < 8:
        raise AdapterBrokenError("Error while deserializing header: header too small")
    (length,) = struct.unpack_from("<Q", content)
    if length > len(content) - 8:
        raise AdapterBrokenError("Error while deserializing header: invalid header length")
    try:
        header = json.loads(content[8 : 8 + length])
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise AdapterBrokenError("Error while deserializing header: invalid header") from None
    if 8 + length + end != len(content):
        raise AdapterBrokenError("Error while deserializing header: incomplete metadata, file not fully covered")
