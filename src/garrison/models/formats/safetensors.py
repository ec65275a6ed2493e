"""The header of a safetensors file, and whether the file is long enough for it.

The format: a length of eight bytes, little-endian; that many bytes of JSON; then the tensors without gaps. Comparing
the header with the size of the file finds truncated files without reading tensors. This module imports little, since
every start of a server uses it.
"""

import json
import os
import re
import struct
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from garrison.base.beneath import Tree
from garrison.base.errors import ModelInvalidError
from garrison.models.files.content import open_file, require_content, unreadable
from garrison.models.files.problem import Problem

__all__ = ["MAX_HEADER_BYTES", "Header", "Tensor", "parse_header", "read_header"]

MAX_HEADER_BYTES = 100_000_000
"""The limit of the format's own library."""

_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


_DTYPE = re.compile(r"[A-Z]+[0-9]+(_[A-Z0-9]+)*")


class Tensor(NamedTuple):
    """One tensor. `start` and `end` are bytes after the header. A tuple, since a large model has 100,000 of them."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


class Header(NamedTuple):
    """`size` is that of the whole file, in bytes."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    size: int


def read_header(path: Path, tree: Tree | None = None) -> Header:
    """Read and check the header of the file `path` without reading its tensors. `tree` as in `content.open_file`.

    Raises:
        ModelInvalidError: missing, unreadable, empty, truncated, longer than its header says, or with a corrupt header.
    """
    try:
        descriptor = open_file(path, tree)
        try:
            size = os.fstat(descriptor).st_size
            start = os.read(descriptor, 8)
            length = _header_length(start, size, path, descriptor)
            content = _read_exactly(descriptor, length)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unreadable(path, error) from None
    if len(content) < length:
        raise _truncated(path, 8 + len(content), 8 + length, more=True)
    return parse_header(content, size, path)


def parse_header(content: bytes, file_size: int, path: Path) -> Header:
    """Check the JSON part of a header against the size of its file. Pure; `path` is for the message.

    Raises:
        ModelInvalidError: as `read_header`.
    """
    raw = _json(content, path)
    metadata = raw.pop("__metadata__", None)
    if metadata is not None and not (isinstance(metadata, dict) and all(type(v) is str for v in metadata.values())):
        raise _corrupt(path, "its __metadata__ is not a map of strings")
    tensors = {name: _tensor(name, entry, path) for name, entry in raw.items()}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if tensor.start != end:
            raise _corrupt(path, f"tensor {name!r} starts at byte {tensor.start}, not at {end}")
        end = tensor.end
    promised = 8 + len(content) + end
    if file_size < promised:
        raise _truncated(path, file_size, promised)
    if file_size > promised:
        raise Problem(str(path), f"has {file_size - promised} bytes more than its header accounts for").error()
    return Header(tensors, metadata or {}, file_size)


def _header_length(start: bytes, size: int, path: Path, descriptor: int) -> int:
    if size == 0:
        raise Problem(str(path), "is empty").error()
    if len(start) < 8:
        raise _truncated(path, size, 8, more=True)
    require_content(start + os.pread(descriptor, 32, 8), path)
    length: int = struct.unpack("<Q", start)[0]
    if length > MAX_HEADER_BYTES:
        raise _corrupt(path, f"it claims to be {length} bytes long, the format allows {MAX_HEADER_BYTES}")
    if 8 + length > size:
        if os.pread(descriptor, 1, 8) not in (b"{", b""):
            raise _corrupt(path, f"it claims to be {length} bytes long in a file of {size}")
        raise _truncated(path, size, 8 + length, more=True)
    return length


def _read_exactly(descriptor: int, length: int) -> bytes:
    content = os.read(descriptor, length)
    while len(content) < length:
        more = os.read(descriptor, length - len(content))
        if not more:
            break
        content += more
    return content


def _json(content: bytes, path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise _corrupt(path, "it is not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise _corrupt(path, "it is not valid JSON") from None
    if not isinstance(raw, dict):
        raise _corrupt(path, "it is not a JSON object")
    return raw


def _tensor(name: str, entry: Any, path: Path) -> Tensor:
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        well_formed = (
            type(dtype) is str
            and type(shape) is list
            and all(type(n) is int and n >= 0 for n in shape)
            and type(start) is int
            and type(end) is int
            and 0 <= start <= end
        )
    except (KeyError, TypeError, ValueError):
        well_formed = False
    if not well_formed:
        raise _corrupt(path, f"the entry of tensor {name!r} is malformed")
    bits = _BITS.get(dtype)
    # A type newer than this table is left to the engine; its extent is still checked against the file's size.
    if bits is None and not _DTYPE.fullmatch(dtype):
        raise _corrupt(path, f"tensor {name!r} is of the unknown type {dtype!r}")
    if bits is not None and prod(shape) * bits != (end - start) * 8:
        raise _corrupt(path, f"tensor {name!r} of {dtype} {shape} does not fill its {end - start} bytes")
    return Tensor(dtype, tuple(shape), start, end)


def _corrupt(path: Path, why: str) -> ModelInvalidError:
    return Problem(str(path), f"has a corrupt header: {why}").error()


def _truncated(path: Path, has: int, of: int, *, more: bool = False) -> ModelInvalidError:
    return Problem(str(path), f"is truncated: it has {has} of {'at least ' if more else ''}{of} bytes").error()
