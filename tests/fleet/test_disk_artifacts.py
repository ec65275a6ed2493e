import json
import os
from pathlib import Path

import pytest
from aged_files import aged
from foreign_trees import hub_snapshot

from garrison.fleet.artifacts import disk as disk_artifacts
from garrison.fleet.artifacts.disk import DiskArtifacts, store_root
from garrison.fleet.artifacts.protocol import EntryFault
from garrison.fleet.values.target import NO_STORE, TargetSpec
from garrison.models.adapters.adapter import adapter_digest


def target(url="http://127.0.0.1:8000", **fields):
    return TargetSpec(name="edge", base_url=url, **fields)


@pytest.fixture
def artifacts(tmp_path):
    return DiskArtifacts(tmp_path / "data", "db1")


@pytest.fixture
def base(tmp_path):
    import tiny_model

    return str(tiny_model.make_model(tmp_path / "base"))


STORES = {
    "loopback": (target(), "/data/adapter-store"),
    "localhost": (target("http://localhost:8000"), "/data/adapter-store"),
    "ipv6": (target("http://[::1]:8000"), "/data/adapter-store"),
    "any-address": (target("http://0.0.0.0:8000"), "/data/adapter-store"),
    "127/8": (target("https://127.1.2.3"), "/data/adapter-store"),
    "elsewhere": (target("http://10.0.0.2:8000"), None),
    "a-name": (target("http://localhost.example.org:8000"), None),
    "declared": (target("http://10.0.0.2:8000", adapter_store="/shared"), "/shared"),
    "declared-here": (target(adapter_store="/shared"), "/shared"),
    "off": (target(adapter_store=NO_STORE), None),
}


@pytest.mark.parametrize(("spec", "root"), STORES.values(), ids=STORES)
def test_which_store_a_target_has(spec, root):
    assert store_root(spec, Path("/data")) == (Path(root) if root else None)
    path = DiskArtifacts(Path("/data"), "db1").staged_path(spec, "ab12")
    assert path == (f"{root}/ab12" if root else None)


def test_the_default_store_is_made_when_it_is_needed(artifacts, adapter, tmp_path):
    assert artifacts.can_stage(target())
    digest = adapter_digest(made := adapter("sql"))
    staged = artifacts.stage(target(), str(made), digest)
    assert staged.path == artifacts.staged_path(target(), digest)
    assert artifacts.digest(staged.path) == digest
    assert artifacts.intact(staged.path) is True
    assert artifacts.intact(str(made)) is None


@pytest.mark.parametrize(("below", "can"), [("", True), ("new", True), ("not/mounted", False)])
def test_a_declared_store_needs_its_parent(artifacts, tmp_path, below, can):
    assert artifacts.can_stage(target(adapter_store=str(tmp_path / below))) is can


def test_a_store_that_cannot_be_written(artifacts, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_artifacts.os, "access", lambda path, mode: False)  # root may write anywhere
    assert not artifacts.can_stage(target(adapter_store=str(tmp_path)))


def test_a_good_adapter(artifacts, adapter, base):
    made = adapter("sql")
    content = artifacts.check(str(made), target(max_lora_rank=8), base)
    assert (content.failure, content.digest, content.info.rank) == (None, adapter_digest(made), 8)


def truncated(path):
    os.truncate(path / "adapter_model.safetensors", (path / "adapter_model.safetensors").stat().st_size - 10)


def emptied(path):
    (path / "adapter_model.safetensors").unlink()


def unconfigured(path):
    (path / "adapter_config.json").unlink()


@pytest.mark.parametrize("break_it", [truncated, emptied, unconfigured])
def test_a_broken_adapter_is_refused(artifacts, adapter, base, break_it):
    break_it(made := adapter("sql"))
    failure = artifacts.check(str(made), target(), base).failure
    assert (failure.code, failure.recoverable) == ("InvalidRequest", False)
    assert "adapter_" in failure.message


def test_wrong_shapes_are_refused(artifacts, adapter, base):
    failure = artifacts.check(str(adapter("narrow", width=32)), target(), base).failure
    assert failure.code == "InvalidRequest"
    assert "32 inputs, and the base model has 64" in failure.message


@pytest.mark.parametrize("root", [None, "acme/tiny", "/nowhere", "{here}"])
def test_where_the_base_cannot_be_read_shapes_are_not_judged(artifacts, adapter, tmp_path, root):
    made = adapter("narrow", width=32)
    root = str(tmp_path) if root == "{here}" else root
    assert artifacts.check(str(made), target(), root).failure is None


def test_a_base_is_read_once(artifacts, adapter, base, monkeypatch):
    reads = []
    real = disk_artifacts.read_base
    monkeypatch.setattr(disk_artifacts, "read_base", lambda path: reads.append(path) or real(path))
    for name in "abc":
        artifacts.check(str(adapter(name)), target(), base)
    assert len(reads) == 1


def test_what_cannot_be_compared_is_said_and_not_refused(artifacts, adapter, tmp_path):
    import tiny_model

    packed = tiny_model.make_model(tmp_path / "packed")
    tensors = {
        f"model.layers.{n}.self_attn.q_proj.qweight": {"dtype": "I32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]}
        for n in (0, 1)
    }
    head = json.dumps(tensors).encode()
    (packed / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(8))
    content = artifacts.check(str(adapter("sql")), target(), str(packed))
    assert content.failure is None
    assert "cannot be told" in content.untold[0]


def test_rank_against_the_server(artifacts, adapter):
    failure = artifacts.check(str(adapter("big", rank=16)), target(max_lora_rank=8), None).failure
    assert "--max-lora-rank 16" in failure.hint


@pytest.mark.parametrize("path", ["/nowhere/sql", "acme/sql", "relative"])
def test_what_is_not_here_is_not_judged(artifacts, path):
    assert artifacts.check(path, target(), None) is None


def test_files_that_change_while_they_are_checked(artifacts, adapter, monkeypatch):
    made = adapter("sql")
    real = disk_artifacts.inspect_adapter

    def slow(path, tree):
        info = real(path, tree)
        (made / "adapter_model.safetensors").write_bytes(b"half")
        return info

    monkeypatch.setattr(disk_artifacts, "inspect_adapter", slow)
    failure = artifacts.check(str(made), target(), None).failure
    assert (failure.code, failure.recoverable) == ("NotStabilized", True)


def test_a_database_remembers_digests(tmp_path, adapter, monkeypatch):
    from garrison.fleet.artifacts import digests as adapter_digests
    from garrison.store.sql.store import open_store

    made = aged(adapter("sql"))
    store = open_store(tmp_path / "garrison.db")
    digest = DiskArtifacts(tmp_path, store.identity(), record=store).digest(made)
    store.close()

    def fail(path, tree=None):
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(adapter_digests, "adapter_digest", fail)
    store = open_store(tmp_path / "garrison.db")
    assert DiskArtifacts(tmp_path, store.identity(), record=store).digest(made) == digest
    store.close()


# --- links that lead out of an adapter


@pytest.fixture
def linked(adapter, tmp_path):
    """An adapter whose weights lie elsewhere."""
    made = adapter("sql")
    (made / "adapter_model.safetensors").rename(tmp_path / "elsewhere")
    (made / "adapter_model.safetensors").symlink_to(tmp_path / "elsewhere")
    return made


def test_links_that_lead_out_are_refused_where_files_would_be_copied(artifacts, linked, tmp_path):
    content = artifacts.check(str(linked), target(), None)
    assert (content.failure.code, content.failure.recoverable) == ("InvalidRequest", False)
    assert f"is a link to {tmp_path / 'elsewhere'}, which leads out of {linked}" in content.failure.message
    assert artifacts.digest(str(linked)) is None


def test_what_is_loaded_in_place_is_the_servers_own_business(artifacts, linked):
    assert artifacts.check(str(linked), target(adapter_store=NO_STORE), None) is None


def test_a_link_that_leads_out_and_is_no_file_of_an_adapter(artifacts, adapter):
    made = adapter("sql")
    (made / "latest").symlink_to("/etc")
    assert artifacts.check(str(made), target(), None).failure is None


def test_an_adapter_in_a_hub_cache(artifacts, adapter, tmp_path):
    snapshot = hub_snapshot(adapter("sql"), tmp_path)
    content = artifacts.check(str(snapshot), target(), None)
    assert (content.failure, content.digest) == (None, adapter_digest(tmp_path / "made" / "sql"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_pipe_blocks_nobody(artifacts, adapter, name):
    made = adapter("sql")
    (made / name).unlink()
    os.mkfifo(made / name)
    assert artifacts.check(str(made), target(), None).failure is not None


# --- faults of entries


def test_faults_of_entries(artifacts, adapter, tmp_path):
    digest = adapter_digest(made := adapter("sql"))
    entry = Path(artifacts.stage(target(), str(made), digest).path)
    gone = entry.with_name("0" * 64)
    assert artifacts.faults([str(entry), str(made), "/nowhere", "relative"]) == {}
    assert artifacts.faults([str(gone)]) == {str(gone): EntryFault.MISSING}
    os.link(entry / "adapter_model.safetensors", tmp_path / "another name")
    assert artifacts.faults([str(entry)]) == {str(entry): EntryFault.SHARED}
    (tmp_path / "another name").unlink()
    assert artifacts.faults([str(entry)]) == {}
    (entry / "adapter_model.safetensors").chmod(0o600)
    with open(entry / "adapter_model.safetensors", "r+b") as file:
        file.write(b"other")
    assert artifacts.faults([str(entry)]) == {str(entry): EntryFault.CHANGED}
    assert not artifacts.holds(target(), digest)
    artifacts.stage(target(), str(made), digest)
    assert artifacts.holds(target(), digest)
    assert not artifacts.holds(target(adapter_store=NO_STORE), digest)


def test_an_entry_that_is_as_it_was_is_not_opened(artifacts, adapter, monkeypatch):
    """The agent asks for every adapter twice a minute."""
    entry = artifacts.stage(target(), str(made := adapter("sql")), adapter_digest(made)).path
    assert artifacts.faults([entry]) == {}

    def fail(path, clock):
        raise AssertionError(f"{path} was looked into")

    monkeypatch.setattr(disk_artifacts, "fault_of", fail)
    assert artifacts.faults([entry]) == {}


def test_an_adapter_of_another_engine_is_refused_with_what_to_do(artifacts, tmp_path):
    (tmp_path / "lora.gguf").write_bytes(b"GGUF")
    (tmp_path / "notes.txt").write_text("x")
    failure = artifacts.check(str(tmp_path / "lora.gguf"), target(), None).failure
    assert "is a GGUF adapter, and vLLM reads PEFT adapters" in failure.message
    assert "is a file" in artifacts.check(str(tmp_path / "notes.txt"), target(), None).failure.message


@pytest.mark.parametrize("change", [{"use_dora": True}, {"bias": "all"}, {"init_lora_weights": "pissa"}])
def test_what_vllm_does_not_load_is_refused_with_what_to_do(artifacts, adapter, change):
    made = adapter("sql")
    config = json.loads((made / "adapter_config.json").read_text())
    (made / "adapter_config.json").write_text(json.dumps(config | change))
    failure = artifacts.check(str(made), target(), None).failure
    assert "vLLM does not load" in failure.message
    assert "merge_and_unload" in failure.hint
