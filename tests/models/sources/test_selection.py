import pytest

from garrison.base.errors import InvalidError
from garrison.models.sources.selection import ReadIndex, chosen_file, select_files

COMMON = ["config.json", "tokenizer.json", "README.md", "modeling_x.py", "vocab.txt"]


@pytest.mark.parametrize(
    ("extra", "dropped"),
    [
        pytest.param(["model.safetensors"], [], id="safetensors"),
        pytest.param(["model.safetensors"], ["pytorch_model.bin", "consolidated.00.pth", "model.pt"],
                     id="safetensors beside pickles"),
        pytest.param(["model.safetensors"], ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
                     id="safetensors beside pickled shards"),
        pytest.param(["model.safetensors", "sparse_linear.pt", "colbert_linear.pt"], ["pytorch_model.bin"],
                     id="heads of BGE-M3"),
        pytest.param(["model.safetensors", "2_Dense/model.safetensors", "1_Pooling/config.json", "modules.json"],
                     ["2_Dense/pytorch_model.bin"], id="modules of sentence-transformers"),
        pytest.param(["pytorch_model.bin", "linear.pt"], [], id="a head beside pickles"),
        pytest.param(["model.safetensors", "classifier_head.pth"], ["optimizer.pt", "rng_state_0.pth", "scheduler.pt",
                     "training_args.bin", "checkpoint-500/model.safetensors", "global_step500/zero.pt"],
                     id="what a trainer left"),
        pytest.param(["model.safetensors"], ["model.fp16.safetensors"], id="a variant"),
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
        pytest.param(["X.gguf", "mmproj-F16.gguf"], [], id="a GGUF and its projector"),
        pytest.param(["X-Q8_0.gguf", "mmproj-Q8_0.gguf"], ["mmproj-F32.gguf", "mmproj-BF16.gguf"],
                     id="a GGUF and the closest of three projectors"),
        pytest.param(["X.gguf"], ["mtp-X.gguf", "imatrix-X.gguf"], id="a GGUF and files for other purposes"),
    ],
)  # fmt: skip
def test_what_an_engine_needs(extra: list[str], dropped: list[str]) -> None:
    assert select_files([*COMMON, *extra, *dropped]) == sorted([*COMMON, *extra])


def test_several_gguf_ask_for_a_name() -> None:
    with pytest.raises(InvalidError, match="2 GGUF models"):
        select_files(["a-q4.gguf", "a-q8.gguf", "README.md"])


def test_a_named_gguf_brings_its_parts() -> None:
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "m-q8.gguf", "config.json"]
    with pytest.raises(InvalidError, match=r"part 2 of a model of 2 files") as caught:
        select_files(names, file="m-00002-of-00002.gguf")
    assert "m-00001-of-00002.gguf" in str(caught.value.hint)
    assert select_files(names, file="m-00001-of-00002.gguf") == names[:2]
    assert select_files(names, file="m-q8.gguf") == ["m-q8.gguf"]
    assert select_files(names, file="none.gguf") == []


def test_patterns() -> None:
    assert select_files(["a.bin", "b.txt", "sub/c.txt", ".d.txt"], patterns=("*.txt",)) == ["b.txt", "sub/c.txt"]


def test_names_that_lead_out_stay_to_be_refused() -> None:
    assert "../x" in select_files(["../x", "config.json"])


def shards(stem: str, total: int, suffix: str = "safetensors") -> list[str]:
    return [f"{stem}-{number:05d}-of-{total:05d}.{suffix}" for number in range(1, total + 1)]


INDEX = "model.safetensors.index.json"
TWO = [*shards("model", 2), *shards("model", 4), INDEX]


@pytest.mark.parametrize("total", [2, 4])
def test_of_two_sets_the_index_tells_which(total: int) -> None:
    asked = []

    def read_index(name: str) -> list[str]:
        asked.append(name)
        return shards("model", total)

    assert select_files([*COMMON, *TWO], read_index=read_index) == sorted([*COMMON, INDEX, *shards("model", total)])
    assert asked == [INDEX]


def test_the_index_is_read_only_where_there_is_a_choice() -> None:
    def read_index(name: str) -> list[str]:
        raise AssertionError(name)

    names = [*shards("model", 2), INDEX, "extra.safetensors"]
    assert select_files(names, read_index=read_index) == sorted(names)


SETS = {
    "the smaller one": ([*shards("model", 2), *shards("model", 4)], shards("model", 2)),
    "the whole one": ([*shards("model", 2)[:1], *shards("model", 4)], shards("model", 4)),
    "not a variant": ([*shards("model.fp16", 2), *shards("model", 4)], shards("model", 4)),
    "shards, if there is an index": ([*shards("model", 2), "model.safetensors", INDEX], [*shards("model", 2), INDEX]),
    "one file, if there is none": ([*shards("model", 2), "model.safetensors"], ["model.safetensors"]),
    "pickles": ([*shards("pytorch_model", 2, "bin"), *shards("pytorch_model", 3, "bin")],
                shards("pytorch_model", 2, "bin")),
    "in each directory": ([*shards("model", 2), *shards("vae/model", 3)],
                          [*shards("model", 2), *shards("vae/model", 3)]),
    "with what is no copy": ([*shards("model", 2), *shards("model", 3), "mtp.safetensors"],
                             [*shards("model", 2), "mtp.safetensors"]),
}  # fmt: skip


@pytest.mark.parametrize(
    "read_index", [None, lambda _: None, lambda _: ["gone.safetensors"]], ids=["no", "none", "wrong"]
)
@pytest.mark.parametrize(("names", "kept"), SETS.values(), ids=SETS)
def test_one_set_without_the_word_of_an_index(names: list[str], kept: list[str], read_index: ReadIndex | None) -> None:
    assert select_files(names, read_index=read_index) == sorted(kept)


def test_a_quantization_is_one_file_of_the_listing() -> None:
    names = [".x-Q4_K_M.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf"]
    assert chosen_file(names, None, "Q8_0", "acme/m") == "m-Q8_0.gguf"
    assert chosen_file(names, None, "", "acme/m") == "m-Q4_K_M.gguf"
    assert chosen_file(names, "m-Q8_0.gguf", None, "acme/m") == "m-Q8_0.gguf"
    assert chosen_file(names, None, None, "acme/m") is None
