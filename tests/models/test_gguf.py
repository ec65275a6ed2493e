import contextlib
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import ModelInvalidError
from garrison.models.formats.gguf import read_gguf


def fault(path):
    with pytest.raises(ModelInvalidError) as caught:
        read_gguf(path)
    assert caught.value.details["file"] == str(path)
    return caught.value.details["reason"]


def test_a_good_file_tells_what_it_is(tmp_path, make):
    header = read_gguf(make.gguf(tmp_path / "m.gguf", tensors=3))
    assert header.version == 3
    assert header.tensors == 3
    assert header.parameters == 3 * 32
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["tokenizer.ggml.tokens"] == 3


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"GGML" + bytes(64), "is not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"../../blobs/" + b"c" * 64, "text of a link into a hub cache"),
        (b"GGUF\x03\0\0\0", "is truncated"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "GGUF version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "GGUF version"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "corrupt header"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63) + b"x", "is truncated"),
        (b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"k", 99), "corrupt header"),
    ],
    ids=["empty", "other-magic", "lfs", "link", "cut", "version-1", "big-endian", "tensors", "string", "value-type"],
)
def test_what_is_none(tmp_path, content, why):
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert why in fault(path)


def test_missing(tmp_path):
    assert fault(tmp_path / "m.gguf") == "is missing"


def test_any_truncation_is_found(tmp_path, make):
    path = make.gguf(tmp_path / "m.gguf", tensors=2)
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        fault(path)


@given(st.binary(max_size=120))
def test_any_bytes_after_the_magic_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + content)
    with contextlib.suppress(ModelInvalidError):
        read_gguf(path)


def test_sizes_of_blocks_and_names_of_types_are_those_of_the_formats_own_library():
    from gguf.constants import GGML_QUANT_SIZES, LlamaFileType

    from garrison.models import info
    from garrison.models.formats import gguf

    assert {kind: sizes for kind, sizes in GGML_QUANT_SIZES.items() if kind in gguf._BLOCKS} == gguf._BLOCKS
    names = {int(kind): kind.name.removeprefix("ALL_").removeprefix("MOSTLY_") for kind in LlamaFileType}
    assert {kind: names[kind].removesuffix("_MOE") for kind in info._GGUF_TYPES} == info._GGUF_TYPES
