import pytest

from garrison.base.errors import ModelInvalidError
from garrison.fleet.artifacts.protocol import EntryFault
from garrison.fleet.values.target import NO_STORE, TargetSpec
from garrison.testing.artifacts import MemoryArtifacts

HERE = TargetSpec(name="here", base_url="http://127.0.0.1:8000")
DECLARED = TargetSpec(name="declared", base_url="http://10.0.0.2:8000", adapter_store="/shared")
NONE = TargetSpec(name="none", base_url="http://127.0.0.1:8000", adapter_store=NO_STORE)


def test_staging_gives_the_pure_path_and_finds_it_again():
    artifacts = MemoryArtifacts({"/a/sql": "d1"}, default_store="/store")
    assert artifacts.stage(HERE, "/a/sql", "d1").path == artifacts.staged_path(HERE, "d1") == "/store/d1"
    assert artifacts.stage(HERE, "/a/sql", "d1").how == "there"
    assert artifacts.intact("/store/d1") is True
    assert artifacts.intact("/a/sql") is None


def test_a_spoiled_entry_gives_a_fresh_name():
    artifacts = MemoryArtifacts({"/a/sql": "d1"}, default_store="/store")
    artifacts.spoiled.add(artifacts.stage(HERE, "/a/sql", "d1").path)
    assert artifacts.stage(HERE, "/a/sql", "d1").path == "/store/d1-2"
    assert artifacts.intact("/store/d1") is False


def test_content_that_changed_meanwhile_is_not_staged():
    artifacts = MemoryArtifacts({"/a/sql": "d2"}, default_store="/store")
    with pytest.raises(ModelInvalidError):
        artifacts.stage(HERE, "/a/sql", "d1")


@pytest.mark.parametrize(("target", "path"), [(HERE, None), (DECLARED, "/shared/d"), (NONE, None)])
def test_who_has_a_store(target, path):
    artifacts = MemoryArtifacts()
    assert artifacts.staged_path(target, "d") == path
    assert artifacts.can_stage(target) is (path is not None)


def test_faults_and_what_stands_in_for_a_source():
    artifacts = MemoryArtifacts({"/a/sql": "d1"}, default_store="/store")
    path = artifacts.stage(HERE, "/a/sql", "d1").path
    assert artifacts.faults([path, "/a/sql"]) == {}
    artifacts.shared.add(path)
    del artifacts.digests["/a/sql"]
    assert artifacts.faults([path]) == {path: EntryFault.SHARED}
    assert artifacts.holds(HERE, "d1")
    assert artifacts.stage(HERE, "/a/sql", "d1").path == "/store/d1-2"
    artifacts.spoiled |= {path, "/store/d1-2"}
    assert artifacts.faults([path]) == {path: EntryFault.CHANGED}
    assert not artifacts.holds(HERE, "d1")


def test_a_path_that_a_server_has_loaded_is_not_given_back():
    artifacts = MemoryArtifacts({"/a/sql": "d1"}, default_store="/store")
    assert artifacts.stage(HERE, "/a/sql", "d1", instead_of="/store/d1").path == "/store/d1-2"
