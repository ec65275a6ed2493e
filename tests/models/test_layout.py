from datetime import UTC, datetime
from pathlib import Path

import pytest

from garrison.base.settings import Settings
from garrison.models.layout import Layout, backup_of, is_model_entry
from garrison.models.names import parse_model

LAYOUT = Layout(root=Path("/m"), data_dir=Path("/d"))
MODEL = parse_model("acme/tiny", exists=lambda _: False)
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def test_paths() -> None:
    assert LAYOUT.model_dir(MODEL) == Path("/m/tiny")
    assert LAYOUT.org_dir(MODEL) == Path("/m/acme/tiny")
    assert LAYOUT.hub == Path("/m/hub")
    assert LAYOUT.adapters == Path("/d/adapters")
    assert LAYOUT.staging_dir(MODEL, "r2") == Path("/m/.staging/acme-tiny.e7f063adcf7c/r2")
    assert LAYOUT.lock_path("acme/tiny") == Path("/m/.locks/acme-tiny.e7f063adcf7c.lock")


def test_two_models_with_one_slug_have_two_locks() -> None:
    assert LAYOUT.lock_path("acme/tiny") != LAYOUT.lock_path("acme-tiny")


def test_two_files_of_a_repository_are_staged_apart() -> None:
    one, other = (parse_model(f"acme/tiny/{q}.gguf", exists=lambda _: False) for q in ("q4", "q8"))
    assert LAYOUT.staging_dir(one, "hf-hub") != LAYOUT.staging_dir(other, "hf-hub")


def test_a_backup_names_its_model_and_sorts_by_time() -> None:
    first, second = (LAYOUT.backup_path(Path("/m/tiny"), NOW.replace(second=n)) for n in (5, 50))
    assert first < second
    assert backup_of(first.name) == "tiny"
    assert first.parent == Path("/m")


@pytest.mark.parametrize("name", ["tiny.bak.old", "tiny.bak.20260101", "bak", ".bak.20260102T030405.000678Z"])
def test_what_is_no_backup_of_ours(name: str) -> None:
    assert backup_of(name) is None


def test_entries_of_the_root() -> None:
    target = Path("/m/tiny")
    ours = ["hub", ".staging", ".locks", LAYOUT.backup_path(target, NOW).name, LAYOUT.replaced_path(target, NOW).name]
    assert [name for name in [*ours, "tiny", "tiny.bak.old"] if is_model_entry(name)] == ["tiny", "tiny.bak.old"]


def test_from_settings_is_absolute_and_keeps_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    layout = Layout.from_settings(Settings(models_dir=Path("link/../link"), data_dir=Path("d")))
    assert layout.root == tmp_path / "link"
    assert layout.data_dir == tmp_path / "d"
    assert Layout.from_settings(Settings(data_dir=Path("/d"))).root == Path("/d/models")
