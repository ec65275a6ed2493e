"""The header of a GGUF file: version, metadata, tensors, and whether the file is long enough for them.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

import mmap
import os
import struct
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from garrison.base.beneath import Tree
from garrison.base.errors import ModelInvalidError
from garrison.models.files.content import open_file, require_content, unreadable
from garrison.models.files.problem import Problem

__all__ = ["GgufHeader", "read_gguf"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_TENSORS = 100_000
_MAX_KEYS = 1_000_000
_MAX_DIMS = 8
_DEFAULT_ALIGNMENT = 32

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING = 8
_ARRAY = 9

# ggml type: values per block, bytes per block, from ggml's type traits. 9, Q8_1, does not occur in files.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip


class GgufHeader(NamedTuple):
    """`metadata` holds scalars, strings, and the lengths of arrays. `parameters` counts tensor elements. `shapes` are
    those of all tensors, by name, in GGUF's order: of a matrix the inputs, then the outputs."""

    version: int
    metadata: dict[str, Any]
    tensors: int
    parameters: int
    size: int
    shapes: dict[str, tuple[int, ...]]


class _Cursor:
    """Reads forward through the mapped file; `struct.error` or `IndexError` past its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def scalar(self, code: str) -> Any:
        form = struct.Struct("<" + code)
        (value,) = form.unpack_from(self.data, self.at)
        self.at += form.size
        return value

    def skip(self, length: int) -> None:
        if length > len(self.data) - self.at:
            raise IndexError
        self.at += length

    def text(self) -> str:
        length = self.scalar("Q")
        start = self.at
        self.skip(length)
        return self.data[start : self.at].decode("utf-8", "replace")


def read_gguf(path: Path, tree: Tree | None = None) -> GgufHeader:
    """Read and check the header of the GGUF file `path`. `tree` as in `content.open_file`.

    Raises:
        ModelInvalidError: missing, unreadable, empty, not GGUF, of an unsupported version, truncated or corrupt.
    """
    try:
        with open(open_file(path, tree), "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            start = handle.read(64)
            _check_start(start, size, path)
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(_Cursor(data), path, size)
    except OSError as error:
        raise unreadable(path, error) from None


def _check_start(start: bytes, size: int, path: Path) -> None:
    if size == 0:
        raise Problem(str(path), "is empty").error()
    require_content(start, path)
    if not start.startswith(_MAGIC):
        raise Problem(str(path), "is not a GGUF file: it does not start with GGUF").error()
    if size < 24:
        raise Problem(str(path), f"is truncated: it has {size} of at least 24 bytes").error()


def _parse(cursor: _Cursor, path: Path, size: int) -> GgufHeader:
    cursor.skip(4)
    version, tensors, keys = cursor.scalar("I"), cursor.scalar("Q"), cursor.scalar("Q")
    if version not in _VERSIONS:
        raise Problem(str(path), f"is GGUF version {version}; versions 2 and 3 are known").error()
    if tensors > _MAX_TENSORS or keys > _MAX_KEYS:
        raise _corrupt(path, f"{tensors} tensors and {keys} keys are claimed")
    try:
        metadata = {}
        for _ in range(keys):
            key = cursor.text()
            metadata[key] = _value(cursor, cursor.scalar("I"), path)
        shapes, end = _tensors(cursor, tensors, path)
    except (struct.error, IndexError):
        raise Problem(str(path), f"is truncated: its header does not end within its {size} bytes").error() from None
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1:
        raise _corrupt(path, f"alignment {alignment!r}")
    promised = -(-cursor.at // alignment) * alignment + end if tensors else cursor.at
    if size < promised:
        raise Problem(str(path), f"is truncated: it has {size} of at least {promised} bytes").error()
    return GgufHeader(version, metadata, tensors, sum(map(prod, shapes.values())), size, shapes)


def _value(cursor: _Cursor, kind: int, path: Path) -> Any:
    if kind == _STRING:
        return cursor.text()
    if kind == _ARRAY:
        item, count = cursor.scalar("I"), cursor.scalar("Q")
        if item in _SCALARS:
            cursor.skip(count * struct.calcsize("<" + _SCALARS[item]))
        elif item == _STRING:
            for _ in range(count):
                cursor.skip(cursor.scalar("Q"))
        else:
            raise _corrupt(path, f"an array of type {item}")
        return count
    if kind not in _SCALARS:
        raise _corrupt(path, f"a value of type {kind}")
    return cursor.scalar(_SCALARS[kind])


def _tensors(cursor: _Cursor, count: int, path: Path) -> tuple[dict[str, tuple[int, ...]], int]:
    """The shapes of all tensors, and where the last one ends, in bytes after the header."""
    shapes: dict[str, tuple[int, ...]] = {}
    end = 0
    for _ in range(count):
        name, dims = cursor.text(), cursor.scalar("I")
        if dims > _MAX_DIMS:
            raise _corrupt(path, f"tensor {name!r} has {dims} dimensions")
        shapes[name] = tuple(cursor.scalar("Q") for _ in range(dims))
        elements = prod(shapes[name])
        kind, offset = cursor.scalar("I"), cursor.scalar("Q")
        # A type newer than this table is left to the engine; it takes at least one byte.
        values, block = _BLOCKS.get(kind, (max(elements, 1), 1))
        end = max(end, offset + -(-elements // values) * block)
    return shapes, end


def _corrupt(path: Path, why: str) -> ModelInvalidError:
    return Problem(str(path), f"has a corrupt header: {why}").error()
