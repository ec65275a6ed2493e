import os
import tarfile

import pytest

from garrison.base.errors import DiskFullError, InvalidError, LockedError, ModelInvalidError, ModelNotFoundError
from garrison.base.locks import file_lock
from garrison.models.adapters.adapter import adapter_digest
from garrison.models.adapters.library import (
    find_adapter,
    import_adapter,
    list_adapters,
    remove_adapter,
    show_adapter,
    verify_adapter,
)
from garrison.models.layout import Layout
from garrison.models.verify import record_digests
from garrison.testing.clock import FakeClock


@pytest.fixture
def layout(tmp_path):
    return Layout(root=tmp_path / "models", data_dir=tmp_path / "data")


def names(layout):
    return [entry.name for entry in list_adapters(layout)]


def test_no_directory_is_no_adapters(layout):
    assert list_adapters(layout) == []


def test_import_list_show_verify_remove(layout, tmp_path, make):
    origin = make.adapter(tmp_path / "poet")
    done = import_adapter(layout, origin)
    assert done.changed
    assert done.info.path == layout.adapters / "poet"
    assert done.info.digest() == adapter_digest(origin)
    (entry,) = list_adapters(layout)
    assert (entry.name, entry.valid, entry.info.rank) == ("poet", True, 4)
    assert show_adapter(layout, "poet").base_model == "acme/tiny"
    assert verify_adapter(layout, "poet").source == ".garrison.sha256"
    assert remove_adapter(layout, "poet").name == "poet"
    assert names(layout) == []


def test_a_hand_copied_adapter_counts(layout, make):
    make.adapter(layout.adapters / "poet")
    assert show_adapter(layout, "poet").rank == 4
    assert verify_adapter(layout, "poet").ok


def test_list_says_why_an_adapter_cannot_be_served(layout, make, cut):
    cut(make.adapter(layout.adapters / "poet") / "adapter_model.safetensors", 1)
    (entry,) = list_adapters(layout)
    assert not entry.valid
    assert "truncated" in entry.reason
    with pytest.raises(ModelInvalidError, match="truncated"):
        show_adapter(layout, "poet")


def test_import_of_a_tar_under_another_name(layout, tmp_path, make):
    origin = make.adapter(tmp_path / "poet")
    with tarfile.open(tmp_path / "poet.tgz", "w:gz") as archive:
        archive.add(origin, "poet")
    assert import_adapter(layout, tmp_path / "poet.tgz").info.name == "poet"
    assert import_adapter(layout, tmp_path / "poet.tgz", name="bard").info.name == "bard"
    assert names(layout) == ["bard", "poet"]


def test_import_of_a_broken_adapter_leaves_nothing(layout, tmp_path, make):
    with pytest.raises(ModelInvalidError, match="has rank 4 in its tensors and 9"):
        import_adapter(layout, make.adapter(tmp_path / "poet", r=9))
    assert names(layout) == []


def test_import_of_a_model_is_refused(layout, tmp_path, make):
    with pytest.raises(ModelInvalidError, match="tiny is a model, not an adapter"):
        import_adapter(layout, make.model(tmp_path / "tiny"))


def test_import_over_other_content_must_be_asked_for(layout, tmp_path, make):
    import_adapter(layout, make.adapter(tmp_path / "poet"))
    assert not import_adapter(layout, tmp_path / "poet").changed
    other = make.adapter(tmp_path / "other", rank=8)
    with pytest.raises(InvalidError, match="with other content"):
        import_adapter(layout, other, name="poet")
    done = import_adapter(layout, other, name="poet", replacing=True)
    assert (done.info.rank, done.kept) == (8, None)
    assert [path.name for path in layout.adapters.iterdir() if not path.name.startswith(".")] == ["poet"]


def test_a_full_disk(layout, tmp_path, make):
    with pytest.raises(DiskFullError):
        import_adapter(layout, make.adapter(tmp_path / "poet"), free=lambda _: 0)
    assert names(layout) == []


def test_an_adapter_that_another_command_works_on(layout, tmp_path, make):
    import_adapter(layout, make.adapter(tmp_path / "poet"))
    with file_lock(layout.lock_path("adapters/poet"), timeout=0, purpose="is working on poet"):
        with pytest.raises(LockedError):
            import_adapter(layout, tmp_path / "poet", clock=FakeClock())
        with pytest.raises(LockedError):
            remove_adapter(layout, "poet", clock=FakeClock())


def test_find_suggests(layout, make):
    make.adapter(layout.adapters / "poet")
    with pytest.raises(ModelNotFoundError) as caught:
        find_adapter(layout, "poeet")
    assert caught.value.hint == "Did you mean poet?"


@pytest.mark.parametrize("name", ["..", "../poet", "/etc", ""])
def test_names_that_lead_out(layout, tmp_path, make, name):
    make.adapter(tmp_path / "data" / "poet")
    with pytest.raises(InvalidError):
        remove_adapter(layout, name)
    assert os.listdir(tmp_path / "data") == ["poet"]


def left_by_a_trainer(make, path):
    """What Trainer leaves: the adapter, and far more."""
    make.adapter(path)
    for name in ("optimizer.pt", "rng_state_0.pth", "training_args.bin", "trainer_state.json", "tokenizer.json"):
        (path / name).write_bytes(b"x")
    make.adapter(path / "checkpoint-100")
    (path / "checkpoint-100" / "global_step100").mkdir()
    (path / "checkpoint-100" / "global_step100" / "zero.json").write_text("{}")
    (path / "README.md").write_text("# a card")
    return path


def contents(path):
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.name[0] != ".")


ADAPTER = ["README.md", "adapter_config.json", "adapter_model.safetensors"]


def test_an_import_copies_the_adapter_alone(layout, tmp_path, make):
    origin = left_by_a_trainer(make, tmp_path / "outputs")
    assert import_adapter(layout, origin).changed
    assert contents(layout.adapters / "outputs") == ADAPTER
    assert not import_adapter(layout, origin).changed
    assert verify_adapter(layout, "outputs").ok


def test_a_tar_of_a_trainers_output_is_imported_as_the_adapter_alone(layout, tmp_path, make):
    origin = left_by_a_trainer(make, tmp_path / "outputs")
    with tarfile.open(tmp_path / "outputs.tgz", "w:gz") as archive:
        archive.add(origin, "outputs")
    import_adapter(layout, tmp_path / "outputs.tgz")
    assert contents(layout.adapters / "outputs") == ADAPTER


def test_a_move_leaves_what_does_not_belong(layout, tmp_path, make):
    origin = left_by_a_trainer(make, tmp_path / "outputs")
    import_adapter(layout, origin, move=True)
    assert contents(layout.adapters / "outputs") == ADAPTER
    left = contents(origin)
    assert "optimizer.pt" in left
    assert "checkpoint-100/adapter_model.safetensors" in left
    assert not set(ADAPTER) & set(left)


def test_a_record_that_names_what_was_left_out_is_no_obstacle(layout, tmp_path, make):
    origin = left_by_a_trainer(make, tmp_path / "outputs")
    record_digests(origin)
    import_adapter(layout, origin)
    assert verify_adapter(layout, "outputs").ok


def test_import_of_a_pickle_in_pytorchs_other_name(layout, tmp_path, make):
    origin = make.adapter(tmp_path / "a")
    (origin / "adapter_model.safetensors").rename(origin / "adapter_model.pt")
    import_adapter(layout, origin)
    assert contents(layout.adapters / "a") == ["adapter_config.json", "adapter_model.pt"]


def test_import_of_an_mlx_adapter_leaves_its_checkpoints(layout, tmp_path, make):
    origin = make.mlx_adapter(tmp_path / "a")
    (origin / "0000100_adapters.safetensors").write_bytes(b"half")
    assert import_adapter(layout, origin).info.format == "mlx"
    assert contents(layout.adapters / "a") == ["adapter_config.json", "adapters.safetensors"]


def test_import_of_a_gguf_adapter(layout, tmp_path, make):
    info = import_adapter(layout, make.gguf_adapter(tmp_path / "poet.gguf")).info
    assert (info.name, info.format) == ("poet", "gguf")
    assert info.path == layout.adapters / "poet" / "poet.gguf"
    assert [entry.name for entry in list_adapters(layout)] == ["poet"]
    assert verify_adapter(layout, "poet").ok


def test_beside_an_adapter_a_gguf_adapter_belongs_and_a_model_does_not(layout, tmp_path, make):
    origin = make.adapter(tmp_path / "a")
    make.gguf_adapter(origin / "a-F16-LoRA.gguf")
    make.gguf(origin / "merged-q4.gguf")
    import_adapter(layout, origin)
    assert contents(layout.adapters / "a") == ["a-F16-LoRA.gguf", "adapter_config.json", "adapter_model.safetensors"]
