import os
import zipfile

import pytest

from garrison.base.errors import ModelInvalidError
from garrison.base.exit_codes import ExitCode
from garrison.models.integrity import check_weights, find_fault
from garrison.models.validate import validate_model


def fault(path, **options):
    files = validate_model(path, **options)
    with pytest.raises(ModelInvalidError) as caught:
        check_weights(files)
    assert caught.value.exit_code == ExitCode.MODEL_INVALID == 11
    assert str(find_fault(files)) == caught.value.message
    return caught.value.details["file"], caught.value.details["reason"]


@pytest.mark.parametrize("shards", [1, 3])
def test_a_whole_model_has_no_fault(tmp_path, make, shards):
    files = validate_model(make.model(tmp_path / "m", shards=shards))
    assert find_fault(files) is None
    assert len(check_weights(files)) == shards


def test_a_hub_snapshot_has_no_fault(tmp_path, make):
    assert find_fault(validate_model(make.hub_snapshot(tmp_path / "hub", shards=2))) is None


def test_a_truncated_shard_is_named(tmp_path, make, cut):
    path = make.model(tmp_path / "m", shards=3)
    shard = path / "model-00002-of-00003.safetensors"
    cut(shard, 1)
    file, reason = fault(path)
    assert file == str(shard)
    assert "truncated" in reason


def test_an_empty_shard_is_named(tmp_path, make):
    path = make.model(tmp_path / "m", shards=3)
    os.truncate(path / "model-00003-of-00003.safetensors", 0)
    assert fault(path) == (str(path / "model-00003-of-00003.safetensors"), "is empty")


def test_a_corrupt_header_is_named(tmp_path, make):
    path = make.model(tmp_path / "m")
    content = bytearray((path / "model.safetensors").read_bytes())
    content[8:16] = b"\0" * 8
    (path / "model.safetensors").write_bytes(content)
    file, reason = fault(path)
    assert file == str(path / "model.safetensors")
    assert "corrupt header" in reason


def test_spare_weights_are_checked_too(tmp_path, make, cut):
    path = make.model(tmp_path / "m", shards=2)
    cut(make.safetensors(path / "consolidated.safetensors"), 1)
    assert fault(path)[0] == str(path / "consolidated.safetensors")


def test_a_shard_of_another_version_than_the_index(tmp_path, make):
    path = make.model(tmp_path / "m", shards=2)
    make.safetensors(path / "model-00002-of-00002.safetensors", {"something.else": (2, 2)})
    file, reason = fault(path)
    assert file == str(path / "model-00002-of-00002.safetensors")
    assert "does not contain tensor" in reason
    assert "model.safetensors.index.json" in reason


def tied(make, path, tensor="lm_head.weight", **config):
    """A model of one shard whose index names a tensor that the shard has not."""
    make.model(path, config=make.config | config)
    shards = {name: shape for name, shape in make.weights.items() if name != "lm_head.weight"}
    make.safetensors(path / "model.safetensors", shards)
    make.index(path / "model.safetensors.index.json", dict.fromkeys([*shards, tensor], "model.safetensors"))
    return path


TIED = {
    "in the config": {"tie_word_embeddings": True},
    "in the text config": {"text_config": {"tie_word_embeddings": True}},
    "by the architecture": {"model_type": "gemma2"},
}


@pytest.mark.parametrize("config", TIED.values(), ids=TIED)
def test_a_tied_head_may_be_named_and_absent(tmp_path, make, config):
    assert find_fault(validate_model(tied(make, tmp_path / "m", **config))) is None


@pytest.mark.parametrize(
    "config", [{}, {"tie_word_embeddings": False}, {"model_type": "gemma", "tie_word_embeddings": False}]
)
def test_a_head_that_is_not_tied_may_not_be_absent(tmp_path, make, config):
    assert "lm_head.weight" in fault(tied(make, tmp_path / "m", **config))[1]


def test_nothing_but_the_head_is_tied(tmp_path, make):
    assert "model.norm.weight" in fault(tied(make, tmp_path / "m", "model.norm.weight", tie_word_embeddings=True))[1]


def test_a_stray_shard_is_not_checked(tmp_path, make, cut):
    path = make.model(tmp_path / "m", shards=2)
    cut(make.safetensors(path / "model-00002-of-00005.safetensors"), 1)
    assert find_fault(validate_model(path)) is None


def test_a_part_of_a_split_gguf_that_lost_its_name(tmp_path, make):
    path = make.gguf(tmp_path / "q4.gguf", split__count=3)
    assert "one of 3 files" in find_fault(validate_model(path, allow_gguf=True)).reason


@pytest.mark.parametrize(
    ("kind", "called"), [("adapter", "a LoRA adapter"), ("mmproj", "a projector"), ("imatrix", "an importance")]
)
def test_a_gguf_that_is_no_model(tmp_path, make, kind, called):
    path = make.gguf(tmp_path / "m" / "x.gguf", general__type=kind)
    assert f"is {called}" in find_fault(validate_model(path, allow_gguf=True)).reason
    make.gguf(tmp_path / "m" / "q4.gguf")
    assert find_fault(validate_model(tmp_path / "m", allow_gguf=True)) is None


def test_a_whole_pickle_archive(tmp_path, make):
    path = make.model(tmp_path / "m")
    (path / "model.safetensors").unlink()
    with zipfile.ZipFile(path / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 1000)
    assert find_fault(validate_model(path)) is None


def test_a_truncated_pickle_archive(tmp_path, make, cut):
    path = make.model(tmp_path / "m")
    (path / "model.safetensors").unlink()
    with zipfile.ZipFile(path / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 1000)
    cut(path / "pytorch_model.bin", 30)
    file, reason = fault(path)
    assert file == str(path / "pytorch_model.bin")
    assert "truncated" in reason


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"../../blobs/" + b"b" * 64, "text of a link into a hub cache"),
    ],
    ids=["empty", "lfs-pointer", "link"],
)
def test_a_pickle_that_is_none(tmp_path, make, content, why):
    path = make.model(tmp_path / "m")
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(content)
    assert why in fault(path)[1]


def test_permission_denied_names_the_shard(public_path, make, unprivileged):
    path = make.model(public_path / "m")
    (path / "model.safetensors").chmod(0)
    with unprivileged():
        assert fault(path) == (str(path / "model.safetensors"), "cannot be read: Permission denied")


def test_a_truncated_gguf(tmp_path, make):
    path = make.gguf(tmp_path / "q4.gguf", missing=1)
    file, reason = fault(path, allow_gguf=True)
    assert file == str(path)
    assert "truncated" in reason
