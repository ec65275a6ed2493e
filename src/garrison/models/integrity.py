"""The quick check: faults of weights that headers and sizes show, in milliseconds.

It finds truncated and missing shards, corrupt headers, empty files, and an index that does not match its shards. It
does not find changed bytes inside a tensor; `verify.verify` does.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from garrison.base.beneath import Tree
from garrison.base.errors import ModelInvalidError
from garrison.models.files.content import json_object, open_file, require_content, unreadable
from garrison.models.files.problem import Problem
from garrison.models.formats.gguf import read_gguf
from garrison.models.formats.safetensors import Header, read_header
from garrison.models.shards import ShardName
from garrison.models.validate import ModelFiles

__all__ = ["check_pytorch", "check_weights", "find_fault"]

# An output layer, or the embeddings of an encoder or decoder: saved once where the config ties them.
_TIED = re.compile(
    r"(?:.+\.)?(?:lm_head|embed_out|output_layer|proj_out|(?:en|de)coder\.embed_tokens)\.weight", re.DOTALL
)
_TIED_ARCHITECTURES = ("gemma", "cohere", "gpt2", "opt", "bloom", "t5", "mt5", "bart", "mbart", "whisper")
_NO_MODELS = {
    "adapter": "a LoRA adapter",
    "mmproj": "a projector for images or sound",
    "imatrix": "an importance matrix",
}
_ZIP_START = b"PK\x03\x04"
_ZIP_END = b"PK\x05\x06"
_ZIP_END_MAX = 22 + 65535


def check_weights(files: ModelFiles, tree: Tree | None = None) -> dict[Path, Header]:
    """Check every weight file that an engine loads, and return the safetensors headers. `tree` as in
    `content.open_file`.

    Raises:
        ModelInvalidError: the message names the file and what is wrong with it.
    """
    headers: dict[Path, Header] = {}
    # vLLM loads Mistral's own copy of the weights wherever there is one, whatever the index names.
    consolidated = [path for path in files.spare if path.match("consolidated*.safetensors")]
    for path in (*files.weights, *consolidated):
        match path.suffix:
            case ".safetensors":
                headers[path] = read_header(path, tree)
            case ".gguf":
                _check_gguf(path, tree, alone=path == files.path)
            case _:
                check_pytorch(path, tree)
    _check_index(files, headers, tree)
    return headers


def find_fault(files: ModelFiles) -> Problem | None:
    """As `check_weights`, but return the fault."""
    try:
        check_weights(files)
    except ModelInvalidError as error:
        return Problem(error.details["file"], error.details["reason"], error.hint or "")
    return None


def _check_gguf(path: Path, tree: Tree | None, *, alone: bool) -> None:
    """`alone`: it was named as the model, and is not one of the files of a directory."""
    metadata = read_gguf(path, tree).metadata
    if alone and (kind := metadata.get("general.type")) in _NO_MODELS:
        raise Problem(str(path), f"is {_NO_MODELS[kind]}, not a model", "Name the model that it belongs to.").error()
    parts = metadata.get("split.count")
    if isinstance(parts, int) and parts > 1 and ShardName.parse(path.name) is None:
        raise Problem(
            str(path),
            f"is one of {parts} files of a split model, and its name does not say so",
            f"Give all of them the names they had: NAME-00001-of-{parts:05d}.gguf and so on; or join them with "
            "`llama-gguf-split --merge`.",
        ).error()


def _check_index(files: ModelFiles, headers: dict[Path, Header], tree: Tree | None) -> None:
    """Every tensor the index names must be in the shard it names, unless it is a copy of another one."""
    if files.index is None:
        return
    named: dict[str, list[str]] = {}
    for tensor, file in files.weight_map.items():
        named.setdefault(file, []).append(tensor)
    for file, tensors in sorted(named.items()):
        header = headers.get(files.path / file)
        if header is None:
            continue
        missing = [tensor for tensor in tensors if tensor not in header.tensors]
        others = [tensor for tensor in missing if not _TIED.fullmatch(tensor)]
        if missing and not others and files.config is not None and _ties(json_object(files.config, tree)):
            continue  # engines take the embeddings for it
        if missing:
            raise Problem(
                str(files.path / file),
                f"does not contain tensor {(others or missing)[0]!r}, which {files.index.name} says it does",
                "The index and the shards are from different versions; fetch the model again.",
            ).error()


def _ties(config: Mapping[str, Any]) -> bool:
    """Whether the output layer is the table of embeddings, by the config or by what its architecture does otherwise."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        if isinstance(tied := part.get("tie_word_embeddings"), bool):
            return tied
    return str(config.get("model_type")).startswith(_TIED_ARCHITECTURES)


def check_pytorch(path: Path, tree: Tree | None = None) -> None:
    """Check that a PyTorch file is not cut short, by its zip envelope: a pickle cannot be read without running it."""
    try:
        with open(open_file(path, tree), "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            start = handle.read(64)
            if size == 0:
                raise Problem(str(path), "is empty").error()
            require_content(start, path)
            if start.startswith(_ZIP_START):
                handle.seek(max(0, size - _ZIP_END_MAX))
                if _ZIP_END not in handle.read():
                    raise Problem(str(path), f"is truncated: its archive does not end within {size} bytes").error()
    except OSError as error:
        raise unreadable(path, error) from None
