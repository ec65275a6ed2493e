import hashlib
import subprocess

import pytest

from garrison.base.errors import ModelInvalidError
from garrison.models.files.hashing import RECORDED_NAME
from garrison.models.verify import read_recorded, record_digests, verify


def states(verification):
    return {file.name: file.state for file in verification.files}


def flip(path):
    """One bit of the last byte: the size and the header stay what they were."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_without_a_record_it_is_made(tmp_path, make):
    path = make.model(tmp_path / "m")
    first = verify(path)
    assert (first.source, first.ok) == (None, True)
    assert set(states(first).values()) == {"recorded"}
    second = verify(path)
    assert (second.source, second.ok) == (RECORDED_NAME, True)
    assert set(states(second).values()) == {"ok"}
    assert second.bytes == sum(file.stat().st_size for file in path.iterdir() if not file.name.startswith("."))


def test_without_a_record_and_none_wanted(tmp_path, make):
    path = make.model(tmp_path / "m")
    verify(path, record=False)
    assert not (path / RECORDED_NAME).exists()


def test_sha256sum_checks_the_record(tmp_path, make):
    path = make.model(tmp_path / "m", shards=2)
    record_digests(path)
    assert subprocess.run(["sha256sum", "-c", "--quiet", RECORDED_NAME], cwd=path, check=False).returncode == 0
    flip(path / "model-00001-of-00002.safetensors")
    checked = subprocess.run(["sha256sum", "-c", "--quiet", RECORDED_NAME], cwd=path, capture_output=True, check=False)
    assert checked.returncode == 1


def test_changed_missing_and_extra_files(tmp_path, make):
    path = make.model(tmp_path / "m", shards=2)
    record_digests(path)
    flip(path / "model-00001-of-00002.safetensors")
    (path / "tokenizer.json").unlink()
    (path / "README.md").touch()
    found = verify(path)
    assert states(found) == {
        "README.md": "extra",
        "config.json": "ok",
        "model-00001-of-00002.safetensors": "changed",
        "model-00002-of-00002.safetensors": "ok",
        "model.safetensors.index.json": "ok",
        "tokenizer.json": "missing",
    }
    assert not found.ok
    with pytest.raises(ModelInvalidError, match=r"model-00001-of-00002.safetensors .*has changed") as caught:
        found.raise_faults()
    assert [fault["state"] for fault in caught.value.details["faults"]] == ["changed", "missing"]


def test_extra_files_are_no_fault(tmp_path, make):
    path = make.model(tmp_path / "m")
    record_digests(path)
    (path / "notes.txt").touch()
    found = verify(path)
    assert found.ok
    found.raise_faults()


def shipped(path, **changes):
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()} | changes
    text = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    (path / "sha256sums.txt").write_text(text)


def test_shipped_sums_are_honoured(tmp_path, make):
    path = make.model(tmp_path / "m")
    shipped(path)
    flip(path / "model.safetensors")
    found = verify(path)
    assert found.source == "sha256sums.txt"
    assert states(found)["model.safetensors"] == "changed"
    assert not (path / RECORDED_NAME).exists()


def test_shipped_sums_go_before_ours(tmp_path, make):
    path = make.model(tmp_path / "m")
    record_digests(path)
    shipped(path, **{"config.json": "0" * 64})
    assert states(verify(path))["config.json"] == "changed"


def test_what_differs_from_shipped_sums_is_not_recorded(tmp_path, make):
    path = make.model(tmp_path / "m")
    shipped(path, **{"model.safetensors": "0" * 64})
    with pytest.raises(ModelInvalidError, match=r"model\.safetensors does not match sha256sums\.txt"):
        record_digests(path)
    assert read_recorded(path) == {}


def test_what_differs_from_an_earlier_record_is_not_recorded_over_it(tmp_path, make):
    path = make.model(tmp_path / "m")
    record_digests(path)
    before = read_recorded(path)
    flip(path / "model.safetensors")
    with pytest.raises(ModelInvalidError, match=r"model\.safetensors does not match \.garrison\.sha256"):
        record_digests(path)
    assert read_recorded(path) == before


def test_files_that_shipped_sums_list_and_nobody_fetched_do_no_harm(tmp_path, make):
    path = make.model(tmp_path / "m")
    shipped(path, **{"pytorch_model.bin": "0" * 64})
    record_digests(path)
    assert verify(path).ok


def test_a_hub_snapshot_is_checked_by_the_names_of_its_blobs(tmp_path, make):
    snapshot = make.hub_snapshot(tmp_path / "hub", shards=2)
    found = verify(snapshot)
    assert (found.source, found.ok) == ("hub", True)
    assert set(states(found).values()) == {"ok"}
    assert not (snapshot / RECORDED_NAME).exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"], ids=["git-blob", "large-file"])
def test_a_changed_blob_of_the_hub_is_found(tmp_path, make, name):
    snapshot = make.hub_snapshot(tmp_path / "hub")
    flip(snapshot / name)
    assert [file.name for file in verify(snapshot).faults] == [name]


def test_a_record_that_is_none(tmp_path, make):
    path = make.model(tmp_path / "m")
    (path / RECORDED_NAME).write_text("nonsense\n")
    with pytest.raises(ModelInvalidError, match=r"\.garrison\.sha256 line 1"):
        verify(path)


def test_permission_denied(public_path, make, unprivileged):
    path = make.model(public_path / "m")
    (path / "model.safetensors").chmod(0)
    with (
        unprivileged(),
        pytest.raises(ModelInvalidError, match=r"model\.safetensors cannot be read: Permission denied"),
    ):
        verify(path, record=False)
