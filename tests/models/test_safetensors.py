import contextlib
import json
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import ModelInvalidError
from garrison.models.formats.safetensors import MAX_HEADER_BYTES, parse_header, read_header

SIZES = {"BOOL": 1, "I8": 1, "F8_E4M3": 1, "F16": 2, "BF16": 2, "U16": 2, "F32": 4, "I64": 8, "C64": 8}


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def fault(path):
    with pytest.raises(ModelInvalidError) as caught:
        read_header(path)
    assert caught.value.message.startswith(str(path))
    assert caught.value.details["file"] == str(path)
    assert caught.value.hint
    return caught.value.details["reason"]


def test_a_good_file_tells_its_tensors(tmp_path, make):
    header = read_header(make.safetensors(tmp_path / "m.safetensors", {"a": (2, 3), "b": ()}))
    assert header.tensors["a"].shape == (2, 3)
    assert (header.tensors["a"].start, header.tensors["a"].end, header.tensors["a"].elements) == (0, 12, 6)
    assert header.tensors["b"].shape == ()
    assert header.metadata == {"format": "pt"}
    assert header.size == (tmp_path / "m.safetensors").stat().st_size


def test_a_file_without_tensors_is_whole(tmp_path, make):
    assert read_header(make.raw_safetensors(tmp_path / "m.safetensors", {})).tensors == {}


def test_tensors_may_stand_in_any_order_in_the_header(tmp_path, make):
    header = {
        "late": entry(offsets=(4, 8)),
        "early": entry(offsets=(0, 4)),
        "nothing": entry(shape=(0,), offsets=(4, 4)),
    }
    assert len(read_header(make.raw_safetensors(tmp_path / "m.safetensors", header, bytes(8))).tensors) == 3


def test_half_byte_types_count_in_bits(tmp_path, make):
    header = {"a": entry("F4", (6,), (0, 3))}
    assert read_header(make.raw_safetensors(tmp_path / "m.safetensors", header, bytes(3)))


def test_a_type_newer_than_ours_is_held_to_the_files_size_only(tmp_path, make):
    path = make.raw_safetensors(tmp_path / "m.safetensors", {"a": entry("F5_NEW", (3,), (0, 5))}, bytes(5))
    assert read_header(path).tensors["a"].dtype == "F5_NEW"
    os.truncate(path, path.stat().st_size - 1)
    assert "truncated" in fault(path)


def test_empty(tmp_path):
    path = tmp_path / "m.safetensors"
    path.touch()
    assert fault(path) == "is empty"


def test_missing(tmp_path):
    assert fault(tmp_path / "m.safetensors") == "is missing"


def test_a_link_to_nothing_names_what_is_gone(tmp_path):
    path = tmp_path / "m.safetensors"
    path.symlink_to("../../blobs/abc")
    assert fault(path) == "is a link to ../../blobs/abc, which is missing"


def test_a_directory(tmp_path):
    path = tmp_path / "m.safetensors"
    path.mkdir()
    assert "is not a regular file" in fault(path)


def test_permission_denied(public_path, make, unprivileged):
    path = make.safetensors(public_path / "m.safetensors")
    path.chmod(0)
    with unprivileged():
        assert fault(path) == "cannot be read: Permission denied"


def test_truncated_says_how_much_is_there(tmp_path, make, cut):
    path = make.safetensors(tmp_path / "m.safetensors", {"a": (4, 4)})
    whole = path.stat().st_size
    cut(path, 5)
    assert fault(path) == f"is truncated: it has {whole - 5} of {whole} bytes"


def test_truncated_within_the_header(tmp_path, make):
    path = make.safetensors(tmp_path / "m.safetensors", {"a": (4, 4)})
    os.truncate(path, 20)
    assert "is truncated: it has 20 of at least" in fault(path)


def test_truncated_within_the_length(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"\x10\0\0")
    assert fault(path) == "is truncated: it has 3 of at least 8 bytes"


def test_longer_than_the_header_accounts_for(tmp_path, make):
    path = make.safetensors(tmp_path / "m.safetensors", {"a": (4, 4)})
    with open(path, "ab") as handle:
        handle.write(b"xyz")
    assert fault(path) == "has 3 bytes more than its header accounts for"


def test_a_git_lfs_pointer_is_called_one(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "Git LFS pointer" in fault(path)


def test_a_link_of_a_cache_that_was_copied_as_a_file_is_called_one(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_text("../../blobs/" + "a" * 64)
    assert "text of a link into a hub cache" in fault(path)


@pytest.mark.parametrize(
    "length", [MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1], ids=["just-above-the-bound", "huge", "largest"]
)
def test_a_length_beyond_the_bound_is_not_allocated(tmp_path, length):
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" + bytes(64))
    assert "corrupt header: it claims" in fault(path)


def test_a_length_beyond_the_file_that_is_no_truncation(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", 5000) + b"\xff" * 64)
    assert "corrupt header: it claims to be 5000 bytes long in a file of 72" in fault(path)


CORRUPT = {
    "not-json": b"{nonsense",
    "not-utf-8": b'{"\xff": 1}',
    "a-list": b"[1, 2]",
    "nested-beyond-the-stack": b"[" * 100_000,
    "digits-without-end": b'{"a": ' + b"9" * 10_000 + b"}",
    "metadata-is-a-list": json.dumps({"__metadata__": []}).encode(),
    "metadata-is-not-text": json.dumps({"__metadata__": {"a": 1}}).encode(),
    "entry-is-a-number": json.dumps({"a": 1}).encode(),
    "entry-is-a-list": json.dumps({"a": [1]}).encode(),
    "entry-without-offsets": json.dumps({"a": {"dtype": "F32", "shape": [1]}}).encode(),
    "three-offsets": json.dumps({"a": entry(offsets=(0, 4, 8))}).encode(),
    "offsets-are-text": json.dumps({"a": entry(offsets=("0", "4"))}).encode(),
    "offsets-run-backwards": json.dumps({"a": entry(shape=(0,), offsets=(4, 0))}).encode(),
    "offset-is-a-flag": json.dumps({"a": entry("I8", (1,), (False, True))}).encode(),
    "negative-dimension": json.dumps({"a": entry(shape=(-1,))}).encode(),
    "dimension-is-a-fraction": json.dumps({"a": entry(shape=(1.0,))}).encode(),
    "shape-does-not-fill-the-span": json.dumps({"a": entry(shape=(2,))}).encode(),
    "a-gap-before-the-first": json.dumps({"a": entry(offsets=(4, 8))}).encode(),
    "two-overlap": json.dumps({"a": entry(offsets=(0, 4)), "b": entry(offsets=(2, 6))}).encode(),
    "dtype-is-no-name": json.dumps({"a": entry(dtype="F3:")}).encode(),
    "dtype-is-null": json.dumps({"a": entry(dtype=None)}).encode(),
}


@pytest.mark.parametrize("header", CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_header(tmp_path, make, header):
    path = make.raw_safetensors(tmp_path / "m.safetensors", header, bytes(4))
    assert fault(path).startswith("has a corrupt header: ")


@st.composite
def files(draw):
    """A header and the length of its content, as a writer of the format makes them."""
    header, offset = {}, 0
    for name in draw(st.lists(st.text(max_size=12).filter(lambda n: n != "__metadata__"), unique=True, max_size=6)):
        dtype = draw(st.sampled_from(sorted(SIZES)))
        shape = draw(st.lists(st.integers(0, 5), max_size=3))
        length = SIZES[dtype]
        for n in shape:
            length *= n
        header[name] = entry(dtype, shape, (offset, offset + length))
        offset += length
    return header, offset


@given(files())
def test_what_is_written_is_read_back(tmp_path_factory, file):
    header, length = file
    content = json.dumps(header).encode()
    read = parse_header(content, 8 + len(content) + length, tmp_path_factory.getbasetemp())
    assert {name: (t.dtype, list(t.shape), [t.start, t.end]) for name, t in read.tensors.items()} == {
        name: (t["dtype"], t["shape"], t["data_offsets"]) for name, t in header.items()
    }


@given(file=files(), data=st.data())
def test_any_truncation_is_found(tmp_path_factory, file, data):
    header, length = file
    content = json.dumps(header).encode()
    whole = struct.pack("<Q", len(content)) + content + bytes(length)
    path = tmp_path_factory.getbasetemp() / "truncated.safetensors"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    fault(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    with contextlib.suppress(ModelInvalidError):
        read_header(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ENTRIES = st.fixed_dictionaries({"dtype": JSON, "shape": JSON, "data_offsets": JSON})


@given(st.dictionaries(st.text(max_size=5), JSON | ENTRIES, max_size=4), st.integers(0, 100))
def test_any_json_is_read_or_refused(tmp_path_factory, header, size):
    content = json.dumps(header).encode()
    with contextlib.suppress(ModelInvalidError):
        parse_header(content, 8 + len(content) + size, tmp_path_factory.getbasetemp())
