import pytest

from garrison.base.errors import InvalidError
from garrison.models.sources.selection import select_files

COMMON = ["config.json", "tokenizer.json", "README.md", "modeling_x.py", "vocab.txt"]


@pytest.mark.parametrize(
    ("extra", "dropped"),
    [
        pytest.param(["model.safetensors"], [], id="safetensors"),
        pytest.param(["model.safetensors"], ["pytorch_model.bin", "x.pth", "y.pt"], id="safetensors beside pickles"),
        pytest.param(["pytorch_model.bin"], ["tf_model.h5", "flax_model.msgpack", "rust_model.ot"], id="pickles only"),
        pytest.param(["model-00001-of-00001.safetensors"], ["consolidated.safetensors"], id="consolidated twin"),
        pytest.param(["consolidated.safetensors", "params.json"], [], id="consolidated alone"),
        pytest.param(["model.safetensors"], ["original/consolidated.00.pth", "onnx/model.onnx", "metal/model.bin"],
                     id="directories of others"),
        pytest.param(["model.safetensors"], ["model-q4.gguf"], id="GGUF beside safetensors"),
        pytest.param(["model.safetensors"], [".gitattributes", ".cache/x"], id="hidden"),
        pytest.param(["model.safetensors", "1_Dense/pytorch_model.bin"], [], id="a pickle in a directory of its own"),
        pytest.param(["m-q4.gguf"], [], id="one GGUF"),
        pytest.param(["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], [], id="a split GGUF"),
    ],
)  # fmt: skip
def test_what_an_engine_needs(extra: list[str], dropped: list[str]) -> None:
    assert select_files([*COMMON, *extra, *dropped]) == sorted([*COMMON, *extra])


def test_several_gguf_ask_for_a_name() -> None:
    with pytest.raises(InvalidError, match="2 GGUF models"):
        select_files(["a-q4.gguf", "a-q8.gguf", "README.md"])


def test_a_named_gguf_brings_its_parts() -> None:
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "m-q8.gguf", "config.json"]
    assert select_files(names, file="m-00001-of-00002.gguf") == names[:2]
    assert select_files(names, file="m-q8.gguf") == ["m-q8.gguf"]
    assert select_files(names, file="none.gguf") == []


def test_patterns() -> None:
    assert select_files(["a.bin", "b.txt", "sub/c.txt", ".d.txt"], patterns=("*.txt",)) == ["b.txt", "sub/c.txt"]


def test_names_that_lead_out_stay_to_be_refused() -> None:
    assert "../x" in select_files(["../x", "config.json"])
