"""The seed's three checks ("Model validation"), one row a test, and what real hub directories look like."""

import json
import os

import pytest

from garrison.base.errors import ModelInvalidError
from garrison.models.files.problem import Problem
from garrison.models.validate import Index, ModelFiles, check_model, judge, list_files, validate_model

CONFIG = {"config.json": 2}
TOKENIZER = {"tokenizer.json": 2}
SHARDS = {f"model-{n:05d}-of-00003.safetensors": 10 for n in (1, 2, 3)}
BIN_SHARDS = {f"pytorch_model-{n:05d}-of-00002.bin": 10 for n in (1, 2)}
SAFE_INDEX = "model.safetensors.index.json"


def index(files, name=SAFE_INDEX):
    return Index(name, {f"tensor.{n}": file for n, file in enumerate(sorted(files))})


def verdict(tmp_path, files, *indexes, **options):
    listing = files | {i.name: 100 for i in indexes}
    return judge(tmp_path, listing, indexes, **options)


def names(files):
    return [path.name for path in files]


# Check 1: config.json


def test_config_json_missing(tmp_path):
    found = verdict(tmp_path, TOKENIZER | {"model.safetensors": 1})
    assert found == Problem(str(tmp_path / "config.json"), "is missing", found.hint)


def test_config_json_must_be_at_the_root(tmp_path):
    assert isinstance(verdict(tmp_path, TOKENIZER | {"a/config.json": 1, "model.safetensors": 1}), Problem)


# Check 2: tokenizer assets

TOKENIZERS = {
    "tokenizer.json": ["tokenizer.json"],
    "tokenizer.model": ["tokenizer.model"],
    "spiece.model": ["spiece.model"],
    "vocab.json + merges.txt": ["vocab.json", "merges.txt"],
    "vocab.txt": ["vocab.txt"],
    "tokenizer_config.json + vocab.json": ["tokenizer_config.json", "vocab.json"],
    "tokenizer_config.json + vocab.txt": ["tokenizer_config.json", "vocab.txt"],
    "tekken.json": ["tekken.json"],
    "tiktoken.model": ["tiktoken.model"],
    "qwen.tiktoken": ["qwen.tiktoken"],
    "XLM-RoBERTa": ["sentencepiece.bpe.model", "special_tokens_map.json"],
    "DeBERTa": ["spm.model", "tokenizer_config.json"],
    "Marian": ["source.spm", "target.spm", "vocab.json"],
    "Mistral's with a version": ["tokenizer.model.v3"],
}
PLAUSIBLE = {
    "SentencePiece of another name": ["ice_text_tokenizer.model"],
    "SentencePiece of any name": ["ice_text.model", "tokenizer_config.json"],
    "a type of their own": ["prophetnet.tokenizer"],
    "a dictionary of words": ["entity_vocab.json"],
    "code": ["tokenization_chatglm.py", "tokenizer_config.json"],
    "byte pairs": ["vocab.bpe"],
    "in Rust's form": ["rwkv_vocab_v20230424.txt"],
}
NO_TOKENIZERS = {
    "nothing": [],
    "vocab.json alone": ["vocab.json"],
    "merges.txt alone": ["merges.txt"],
    "tokenizer_config.json alone": ["tokenizer_config.json"],
    "special tokens alone": ["special_tokens_map.json", "added_tokens.json"],
    "weights of that name": ["token_embeddings.safetensors"],
    "in another directory": ["other/tokenizer.json"],
    "halves in two directories": ["vocab.json", "tokenizer/merges.txt"],
}


@pytest.mark.parametrize("place", ["", "tokenizer/", "tokenizer_files/"], ids=["root", "tokenizer", "tokenizer_files"])
@pytest.mark.parametrize("assets", TOKENIZERS.values(), ids=TOKENIZERS)
def test_tokenizer_recognised(tmp_path, assets, place):
    files = CONFIG | {place + name: 1 for name in assets} | {"model.safetensors": 1}
    assert isinstance(verdict(tmp_path, files), ModelFiles)


@pytest.mark.parametrize("assets", PLAUSIBLE.values(), ids=PLAUSIBLE)
def test_a_tokenizer_of_an_unknown_kind_is_a_remark(tmp_path, assets):
    found = verdict(tmp_path, CONFIG | dict.fromkeys(assets, 1) | {"model.safetensors": 1})
    (remark,) = found.remarks
    assert assets[0] in remark


def test_a_known_tokenizer_is_no_remark(tmp_path):
    files = CONFIG | TOKENIZER | {"tokenization_x.py": 1, "model.safetensors": 1}
    assert verdict(tmp_path, files).remarks == ()


@pytest.mark.parametrize("assets", NO_TOKENIZERS.values(), ids=NO_TOKENIZERS)
def test_tokenizer_missing(tmp_path, assets):
    files = CONFIG | dict.fromkeys(assets, 1) | {"model.safetensors": 1}
    found = verdict(tmp_path, files)
    assert isinstance(found, Problem)
    assert "tokenizer" in found.reason
    assert "GARRISON_SKIP_TOKENIZER_CHECK" in found.hint


def test_tokenizer_check_skipped(tmp_path):
    assert isinstance(verdict(tmp_path, CONFIG | {"model.safetensors": 1}, skip_tokenizer=True), ModelFiles)


# Check 3: weights


def test_index_with_all_its_shards(tmp_path):
    found = verdict(tmp_path, CONFIG | TOKENIZER | SHARDS, index(SHARDS))
    assert names(found.weights) == sorted(SHARDS)
    assert (found.bytes, found.format, found.index) == (30, "safetensors", tmp_path / SAFE_INDEX)


@pytest.mark.parametrize("gone", sorted(SHARDS))
def test_index_naming_a_missing_shard(tmp_path, gone):
    files = {name: size for name, size in SHARDS.items() if name != gone}
    found = verdict(tmp_path, CONFIG | TOKENIZER | files, index(SHARDS))
    assert found.file == str(tmp_path / gone)
    assert "is missing" in found.reason
    assert SAFE_INDEX in found.reason


def test_index_with_none_of_its_shards(tmp_path):
    found = verdict(tmp_path, CONFIG | TOKENIZER, index(SHARDS))
    assert found.file == str(tmp_path / "model-00001-of-00003.safetensors")
    assert "and 2 more" in found.reason


def test_index_whose_shards_are_all_gone_beside_another_file_of_the_format(tmp_path):
    found = verdict(tmp_path, CONFIG | TOKENIZER | {"model.safetensors": 1}, index(SHARDS))
    assert "is missing" in found.reason


def test_shards_in_a_directory_of_their_own(tmp_path):
    files = {"weights/a.safetensors": 3, "weights/b.safetensors": 4}
    found = verdict(tmp_path, CONFIG | TOKENIZER | files, index(files))
    assert found.weights == (tmp_path / "weights/a.safetensors", tmp_path / "weights/b.safetensors")


def test_set_of_shards_without_an_index(tmp_path):
    assert names(verdict(tmp_path, CONFIG | TOKENIZER | SHARDS).weights) == sorted(SHARDS)


@pytest.mark.parametrize("gone", sorted(SHARDS))
def test_set_of_shards_with_one_missing(tmp_path, gone):
    files = {name: size for name, size in SHARDS.items() if name != gone}
    found = verdict(tmp_path, CONFIG | TOKENIZER | files)
    assert found.file == str(tmp_path / gone)


def test_a_set_that_claims_to_have_no_end(tmp_path):
    found = verdict(tmp_path, CONFIG | TOKENIZER | {"model-00001-of-999999999.safetensors": 1})
    assert found.file.endswith("model-00002-of-999999999.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_one_weight_like_file(tmp_path, name):
    assert names(verdict(tmp_path, CONFIG | TOKENIZER | {name: 1}).weights) == [name]


def test_gguf_counts_as_weights_beside_a_config(tmp_path):
    assert verdict(tmp_path, CONFIG | TOKENIZER | {"model.gguf": 1}).format == "gguf"


@pytest.mark.parametrize(
    "files",
    [{}, {"training_args.bin": 1, "optimizer.pt": 1, "rng_state_0.pth": 1}, {"sub/model.safetensors": 1}],
    ids=["none", "only-a-trainers", "only-below"],
)
def test_no_weights(tmp_path, files):
    assert "no weight files" in verdict(tmp_path, CONFIG | TOKENIZER | files).reason


def test_an_adapter_is_called_one(tmp_path):
    found = verdict(tmp_path, CONFIG | TOKENIZER | {"adapter_model.safetensors": 1})
    assert "LoRA adapter" in found.reason
    assert "garrison adapters import" in found.hint


# Numbers in names are a hint where there is no index

FROM_ZERO = {f"model-{n:05d}-of-00002.safetensors": 10 for n in (0, 1)}
OTHER_SET = {"model-00002-of-00005.safetensors": 10}


@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "by-number"])
def test_shards_numbered_from_zero(tmp_path, indexed):
    found = verdict(tmp_path, CONFIG | TOKENIZER | FROM_ZERO, *([index(FROM_ZERO)] if indexed else []))
    assert (names(found.weights), found.remarks) == (sorted(FROM_ZERO), ())


def test_shards_numbered_from_zero_with_one_missing(tmp_path):
    found = verdict(tmp_path, CONFIG | TOKENIZER | {"model-00000-of-00003.safetensors": 1})
    assert found.file == str(tmp_path / "model-00001-of-00003.safetensors")


@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "by-number"])
def test_a_stray_shard_of_another_set_is_noticed(tmp_path, indexed):
    found = verdict(tmp_path, CONFIG | TOKENIZER | SHARDS | OTHER_SET, *([index(SHARDS)] if indexed else []))
    assert (names(found.weights), names(found.spare)) == (sorted(SHARDS), sorted(OTHER_SET))
    (remark,) = found.remarks
    assert remark.startswith("model-00002-of-00005.safetensors is not loaded")


def test_a_stray_shard_beside_a_single_file(tmp_path):
    found = verdict(tmp_path, CONFIG | TOKENIZER | OTHER_SET | {"model.safetensors": 5})
    assert (names(found.weights), found.bytes) == (["model.safetensors"], 5)


def test_many_strays_are_counted(tmp_path):
    strays = {f"old-{n:05d}-of-00900.safetensors": 1 for n in range(1, 800)}
    remarks = verdict(tmp_path, CONFIG | TOKENIZER | SHARDS | strays, index(SHARDS)).remarks
    assert len(remarks) == 4
    assert remarks[-1] == "796 more weight files are not loaded"


def test_another_format_beside_it_is_noticed(tmp_path):
    found = verdict(tmp_path, CONFIG | TOKENIZER | SHARDS | {"pytorch_model.bin": 1, "m.gguf": 1}, index(SHARDS))
    assert found.remarks == ("m.gguf (and 1 more) is not loaded: the safetensors files are",)


def test_an_index_of_a_variant_that_came_without_its_shards_says_nothing(tmp_path):
    other = index({"model.fp16-00001-of-00002.safetensors"}, "model.fp16.safetensors.index.json")
    found = verdict(tmp_path, CONFIG | TOKENIZER | {"model.safetensors": 5}, other)
    assert (names(found.weights), found.index) == (["model.safetensors"], None)


def test_an_index_of_a_variant_is_not_excused_by_the_engines_own(tmp_path):
    variant = {"model.fp16-00001-of-00001.safetensors": 1}
    other = index(variant, "model.fp16.safetensors.index.json")
    assert isinstance(verdict(tmp_path, CONFIG | TOKENIZER | variant, other, index(SHARDS)), Problem)


# Mistral's own layout

PARAMS = {"params.json": 2, "tekken.json": 1}
CONSOLIDATED = {f"consolidated-{n:05d}-of-00002.safetensors": 10 for n in (1, 2)}
CONSOLIDATED_INDEX = "consolidated.safetensors.index.json"


@pytest.mark.parametrize("tokenizer", ["tekken.json", "tokenizer.model", "tokenizer.model.v3"])
def test_one_file_in_mistrals_layout(tmp_path, tokenizer):
    found = verdict(tmp_path, {"params.json": 2, tokenizer: 1, "consolidated.safetensors": 9})
    assert (names(found.weights), found.config) == (["consolidated.safetensors"], tmp_path / "params.json")


def test_shards_in_mistrals_layout(tmp_path):
    found = verdict(tmp_path, PARAMS | CONSOLIDATED, index(CONSOLIDATED, CONSOLIDATED_INDEX))
    assert (names(found.weights), found.bytes) == (sorted(CONSOLIDATED), 20)
    assert found.index == tmp_path / CONSOLIDATED_INDEX


@pytest.mark.parametrize("gone", sorted(CONSOLIDATED))
def test_shards_in_mistrals_layout_with_one_missing(tmp_path, gone):
    files = {name: size for name, size in CONSOLIDATED.items() if name != gone}
    for indexes in ([], [index(CONSOLIDATED, CONSOLIDATED_INDEX)]):
        assert verdict(tmp_path, PARAMS | files, *indexes).file == str(tmp_path / gone)


def test_mistrals_layout_without_a_tokenizer(tmp_path):
    assert "tokenizer" in verdict(tmp_path, {"params.json": 2, "consolidated.safetensors": 9}).reason


def test_mistrals_layout_beside_broken_shards(tmp_path):
    files = CONFIG | TOKENIZER | PARAMS | {"consolidated.safetensors": 9, "model-00001-of-00003.safetensors": 1}
    found = verdict(tmp_path, files, index(SHARDS))
    assert (names(found.weights), found.config) == (["consolidated.safetensors"], tmp_path / "params.json")


def test_metas_original_files_are_not_mistrals(tmp_path):
    found = verdict(tmp_path, {"params.json": 2, "tokenizer.model": 1, "consolidated.00.pth": 9})
    assert found.file == str(tmp_path / "config.json")


# Hub directories as they are


def test_a_bin_index_that_came_without_its_shards_does_no_harm(tmp_path):
    other = index(BIN_SHARDS, "pytorch_model.bin.index.json")
    found = verdict(tmp_path, CONFIG | TOKENIZER | SHARDS, index(SHARDS), other)
    assert found.format == "safetensors"
    assert found.index == tmp_path / SAFE_INDEX


def test_a_safetensors_index_that_came_with_bin_shards_does_no_harm(tmp_path):
    bins = index(BIN_SHARDS, "pytorch_model.bin.index.json")
    found = verdict(tmp_path, CONFIG | TOKENIZER | BIN_SHARDS, index(SHARDS), bins)
    assert (found.format, names(found.weights)) == ("pytorch", sorted(BIN_SHARDS))


def test_incomplete_safetensors_are_not_excused_by_whole_bins(tmp_path):
    files = BIN_SHARDS | {"model-00001-of-00003.safetensors": 1}
    assert isinstance(verdict(tmp_path, CONFIG | TOKENIZER | files, index(SHARDS)), Problem)


def test_consolidated_beside_shards_is_spare(tmp_path):
    found = verdict(tmp_path, CONFIG | TOKENIZER | SHARDS | {"consolidated.safetensors": 99}, index(SHARDS))
    assert (names(found.spare), found.bytes) == (["consolidated.safetensors"], 30)
    (remark,) = found.remarks
    assert remark == "consolidated.safetensors holds the weights again, as Mistral writes them; vLLM loads these"


def test_two_indexes_of_one_format_the_engines_own_counts(tmp_path):
    other = index({"consolidated.safetensors"}, "consolidated.safetensors.index.json")
    found = verdict(tmp_path, CONFIG | TOKENIZER | SHARDS | {"consolidated.safetensors": 9}, other, index(SHARDS))
    assert found.index == tmp_path / SAFE_INDEX


# GGUF, where it was asked for


def test_a_directory_with_gguf_alone(tmp_path):
    assert "llama_cpp" in verdict(tmp_path, {"q4.gguf": 7}).hint
    found = verdict(tmp_path, {"q4.gguf": 7}, allow_gguf=True)
    assert (found.config, found.bytes, found.format) == (None, 7, "gguf")


def test_split_gguf_with_a_part_missing(tmp_path):
    found = verdict(tmp_path, {"q4-00001-of-00002.gguf": 7}, allow_gguf=True)
    assert found.file.endswith("q4-00002-of-00002.gguf")


def test_an_incomplete_split_beside_another_gguf_is_noticed(tmp_path):
    found = verdict(tmp_path, {"q4-00001-of-00002.gguf": 7, "q8.gguf": 9}, allow_gguf=True)
    assert (names(found.weights), names(found.spare)) == (["q8.gguf"], ["q4-00001-of-00002.gguf"])


def test_a_projector_does_not_stand_for_the_model(tmp_path):
    found = verdict(tmp_path, {"q4-00001-of-00002.gguf": 7, "mmproj-F16.gguf": 9}, allow_gguf=True)
    assert found.file.endswith("q4-00002-of-00002.gguf")


def parts(make, directory, *numbers):
    return [make.gguf(directory / f"q4-{n:05d}-of-00003.gguf") for n in numbers]


def test_a_split_gguf_is_named_by_its_first_part(tmp_path, make):
    first, *others = parts(make, tmp_path, 1, 2, 3)
    found = validate_model(first, allow_gguf=True)
    assert found.weights == (first, *others)
    assert found.bytes == sum(path.stat().st_size for path in (first, *others))


@pytest.mark.parametrize("numbers", [(1, 3), (1, 2), (1,)], ids=str)
def test_a_split_gguf_file_with_a_part_missing(tmp_path, make, numbers):
    first = parts(make, tmp_path, *numbers)[0]
    gone = min({1, 2, 3} - set(numbers))
    found = check_model(first, allow_gguf=True)
    assert found.file == str(tmp_path / f"q4-{gone:05d}-of-00003.gguf")
    assert "first of 3 files" in found.reason


@pytest.mark.parametrize("number", [2, 3])
def test_a_later_part_says_to_name_the_first(tmp_path, make, number):
    path = parts(make, tmp_path, 1, 2, 3)[number - 1]
    found = check_model(path, allow_gguf=True)
    assert f"is part {number} of a model of 3 files" in found.reason
    assert "q4-00001-of-00003.gguf" in found.hint


def test_a_single_gguf_file(tmp_path, make):
    path = make.gguf(tmp_path / "q4.gguf")
    assert validate_model(path, allow_gguf=True).weights == (path,)
    assert isinstance(check_model(path), Problem)


# On disk


def reason(path, **options):
    with pytest.raises(ModelInvalidError) as caught:
        validate_model(path, **options)
    assert caught.value.details["file"] in caught.value.message
    return caught.value.message


def test_a_whole_model(tmp_path, make):
    found = validate_model(make.model(tmp_path / "m", shards=3))
    assert len(found.weights) == 3
    assert found.bytes == sum(path.stat().st_size for path in found.weights)
    assert found.weight_map["lm_head.weight"].endswith(".safetensors")


def test_a_hub_snapshot_of_links(tmp_path, make):
    assert len(validate_model(make.hub_snapshot(tmp_path / "hub", shards=2)).weights) == 2


def test_a_pruned_blob_is_a_missing_shard(tmp_path, make):
    snapshot = make.hub_snapshot(tmp_path / "hub", shards=2)
    shard = snapshot / "model-00002-of-00002.safetensors"
    shard.resolve().unlink()
    assert str(shard) in reason(snapshot)


@pytest.mark.parametrize(
    "file",
    ["../other/model.safetensors", "/etc/passwd", "a/../../b", "a\\..\\b", "", "./x", "a//b", "..", "a\0b"],
)
def test_an_index_that_leads_out_of_the_directory(tmp_path, make, file):
    path = make.model(tmp_path / "m")
    make.index(path / SAFE_INDEX, {"t": file})
    assert "leads out of the model's directory" in reason(path)


INDEXES = {
    "a list": "[]",
    "no weight_map": "{}",
    "weight_map is a list": '{"weight_map": []}',
    "file is a number": '{"weight_map": {"a": 1}}',
    "not JSON": "{",
    "empty": "",
}


@pytest.mark.parametrize("content", INDEXES.values(), ids=INDEXES)
def test_an_index_that_is_none(tmp_path, make, content):
    path = make.model(tmp_path / "m")
    (path / SAFE_INDEX).write_text(content)
    assert str(path / SAFE_INDEX) in reason(path)


CONFIGS = {
    "a list": (b"[]", "must hold a JSON object, not a list"),
    "null": (b"null", "must hold a JSON object, not null"),
    "not UTF-8": (b'{"a": "\xff"}', "is not UTF-8 text"),
    "not JSON": (b"<html>", "is not valid JSON"),
    "empty": (b"", "is empty"),
    "nested too deep": (b"[" * 100_000, "is not valid JSON"),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "a link that was copied as a file": (b"../../blobs/" + b"a" * 40, "text of a link into a hub cache"),
}


@pytest.mark.parametrize(("content", "why"), CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_is_none(tmp_path, make, content, why):
    path = make.model(tmp_path / "m")
    (path / "config.json").write_bytes(content)
    message = reason(path)
    assert str(path / "config.json") in message
    assert why in message


def test_a_path_that_is_not_there(tmp_path):
    assert reason(tmp_path / "none").endswith("does not exist")


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "README.md").touch()
    assert "not a model directory" in reason(tmp_path / "README.md")


@pytest.mark.parametrize("name", ["", "config.json"], ids=["the-directory", "the-config"])
def test_permission_denied(public_path, make, unprivileged, name):
    path = make.model(public_path / "m")
    (path / name).chmod(0)
    with unprivileged():
        assert "Permission denied" in reason(path)
    (path / name).chmod(0o755)


def test_a_loop_of_links_ends(tmp_path, make):
    path = make.model(tmp_path / "m")
    (path / "again").symlink_to(".")
    assert validate_model(path)


def test_pipes_and_hidden_files_are_not_listed(tmp_path, make):
    path = make.model(tmp_path / "m")
    os.mkfifo(path / "other.safetensors")
    (path / ".hidden.safetensors").touch()
    assert set(list_files(path)) == {"config.json", "tokenizer.json", "model.safetensors"}


def test_a_directory_that_is_no_model_is_not_walked(tmp_path, monkeypatch):
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    seen = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (seen.append(str(path)), scandir(path))[1])
    assert isinstance(check_model(tmp_path), Problem)
    assert seen == [str(tmp_path)]


def test_the_value_and_the_error_say_the_same(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    problem = check_model(tmp_path)
    assert isinstance(problem, Problem)
    assert str(problem) == reason(tmp_path)


@pytest.mark.parametrize("named", ["the file", "its directory"])
@pytest.mark.parametrize("allow_gguf", [False, True])
def test_a_gguf_with_a_suffix_in_capitals_is_to_be_renamed(tmp_path, named, allow_gguf):
    file = tmp_path / "M-Q4_K_M.GGUF"
    file.write_bytes(b"GGUF")
    path = file if named == "the file" else tmp_path
    with pytest.raises(ModelInvalidError, match=r"M-Q4_K_M\.GGUF does not end in \.gguf") as caught:
        validate_model(path, allow_gguf=allow_gguf)
    assert caught.value.hint == "Rename it to end in .gguf, in lower case."
