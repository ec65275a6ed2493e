"""The quick check: faults of weights that headers and sizes show, in milliseconds.

It finds truncated and missing shards, corrupt headers, empty files, and an index that does not match its shards. It
does not find changed bytes inside a tensor; `verify.verify` does.
"""

import os
from pathlib import Path

from garrison.base.beneath import Tree
from garrison.base.errors import ModelInvalidError
from garrison.models.files.content import lfs_pointer, open_file, pointer_error, unreadable
from garrison.models.files.problem import Problem
from garrison.models.formats.gguf import read_gguf
from garrison.models.formats.safetensors import Header, read_header
from garrison.models.validate import ModelFiles

__all__ = ["check_pytorch", "check_weights", "find_fault"]

_ZIP_START = b"PK\x03\x04"
_ZIP_END = b"PK\x05\x06"
_ZIP_END_MAX = 22 + 65535


def check_weights(files: ModelFiles, tree: Tree | None = None) -> dict[Path, Header]:
    """Check every weight file, and return the safetensors headers. `tree` as in `content.open_file`.

    Raises:
        ModelInvalidError: the message names the file and what is wrong with it.
    """
    headers: dict[Path, Header] = {}
    for path in (*files.weights, *files.spare):
        match path.suffix:
            case ".safetensors":
                headers[path] = read_header(path, tree)
            case ".gguf":
                read_gguf(path, tree)
            case _:
                check_pytorch(path, tree)
    _check_index(files, headers)
    return headers


def find_fault(files: ModelFiles) -> Problem | None:
    """As `check_weights`, but return the fault."""
    try:
        check_weights(files)
    except ModelInvalidError as error:
        return Problem(error.details["file"], error.details["reason"], error.hint or "")
    return None


def _check_index(files: ModelFiles, headers: dict[Path, Header]) -> None:
    """Every tensor the index names must be in the shard it names."""
    if files.index is None:
        return
    named: dict[str, list[str]] = {}
    for tensor, file in files.weight_map.items():
        named.setdefault(file, []).append(tensor)
    for file, tensors in sorted(named.items()):
        header = headers.get(files.path / file)
        if header is None:
            continue
        if missing := [tensor for tensor in tensors if tensor not in header.tensors]:
            raise Problem(
                str(files.path / file),
                f"does not contain tensor {missing[0]!r}, which {files.index.name} says it does",
                "The index and the shards are from different versions; fetch the model again.",
            ).error()


def check_pytorch(path: Path, tree: Tree | None = None) -> None:
    """Check that a PyTorch file is not cut short, by its zip envelope: a pickle cannot be read without running it."""
    try:
        with open(open_file(path, tree), "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            start = handle.read(64)
            if size == 0:
                raise Problem(str(path), "is empty").error()
            if lfs_pointer(start):
                raise pointer_error(path)
            if start.startswith(_ZIP_START):
                handle.seek(max(0, size - _ZIP_END_MAX))
                if _ZIP_END not in handle.read():
                    raise Problem(str(path), f"is truncated: its archive does not end within {size} bytes").error()
    except OSError as error:
        raise unreadable(path, error) from None
