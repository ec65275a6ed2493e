from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import InvalidError
from garrison.models import swap
from garrison.models.layout import Layout
from garrison.models.record import ModelRecord, read_record, write_record
from garrison.testing.clock import FakeClock


class TickingClock(FakeClock):
    """No two moments are the same."""

    def now(self) -> Any:
        self.advance(0.001)
        return super().now()


CLOCK = TickingClock()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(root=tmp_path / "models", data_dir=tmp_path / "data")


def directory(path: Path, word: str, *, ours: bool = True) -> Path:
    path.mkdir(parents=True)
    (path / "word").write_text(word)
    if ours:
        write_record(path, ModelRecord("acme/tiny", "hf-hub", "now"))
    return path


def word(path: Path) -> str:
    return (path / "word").read_text()


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))


@pytest.fixture
def staged(layout: Layout) -> Path:
    return directory(layout.staging_root / "k" / "r2", "new")


def test_into_an_empty_place(layout: Layout, staged: Path) -> None:
    target = layout.root / "acme" / "tiny"
    assert swap.install(staged, target, layout, CLOCK) is None
    assert word(target) == "new"
    assert not staged.exists()


def test_backup_and_rename_in_the_documented_order(layout: Layout, staged: Path) -> None:
    target = directory(layout.root / "tiny", "old")
    seen: list[tuple[str, list[str]]] = []
    swap.install(staged, target, layout, CLOCK, lambda step: seen.append((step, names(layout.root))))
    backup = seen[1][1][0]
    assert backup.startswith("tiny.bak.")
    assert seen == [
        ("before-backup", ["tiny"]),
        ("before-rename", [backup]),
        ("before-cleanup", ["tiny", backup]),
        ("before-delete", ["tiny"]),
        ("done", ["tiny"]),
    ]
    assert word(target) == "new"
    assert swap.SWAP_STEPS[2:] == tuple(step for step, _ in seen)


class TestRecover:
    def test_nothing_to_do(self, layout: Layout) -> None:
        assert swap.recover(layout.root / "tiny", layout, CLOCK) is None
        assert not layout.root.exists()

    def test_the_newest_backup_is_restored(self, layout: Layout) -> None:
        target = layout.root / "tiny"
        for text in ("oldest", "older", "newest"):
            directory(layout.backup_path(target, CLOCK.now()), text)
        directory(layout.backup_path(layout.root / "tiny2", CLOCK.now()), "another model's")
        assert swap.recover(target, layout, CLOCK) is not None
        assert word(target) == "newest"
        assert [name for name in names(layout.root) if name.startswith("tiny.")] == []

    def test_a_target_that_is_there_stays(self, layout: Layout) -> None:
        target = directory(layout.root / "tiny", "current")
        directory(layout.backup_path(target, CLOCK.now()), "old")
        assert swap.recover(target, layout, CLOCK) is None
        assert word(target) == "current"
        assert names(layout.root) == ["tiny"]

    def test_what_a_person_put_there_is_kept_aside(self, layout: Layout) -> None:
        target = directory(layout.root / "tiny", "current")
        directory(layout.backup_path(target, CLOCK.now()), "mine", ours=False)
        swap.recover(target, layout, CLOCK)
        (kept,) = [name for name in names(layout.root) if name != "tiny"]
        assert kept.startswith("tiny.replaced.")
        assert word(layout.root / kept) == "mine"

    def test_trash_is_emptied(self, layout: Layout) -> None:
        trash = directory(layout.trash_path(CLOCK.now()), "x")
        swap.recover(layout.root / "tiny", layout, CLOCK)
        assert not trash.exists()

    def test_a_backup_of_the_users_naming_is_left_alone(self, layout: Layout) -> None:
        mine = directory(layout.root / "tiny.bak.2024", "mine", ours=False)
        assert swap.recover(layout.root / "tiny", layout, CLOCK) is None
        assert word(mine) == "mine"


def test_a_link_is_replaced_not_followed(layout: Layout, staged: Path, tmp_path: Path) -> None:
    real = directory(tmp_path / "elsewhere", "theirs", ours=True)
    (layout.root / "tiny").symlink_to(real)
    kept = swap.install(staged, layout.root / "tiny", layout, CLOCK)
    assert word(layout.root / "tiny") == "new"
    assert word(real) == "theirs"
    assert kept is not None
    assert kept.is_symlink()


def test_a_rename_that_fails_puts_the_old_one_back(layout: Layout, tmp_path: Path) -> None:
    target = directory(layout.root / "tiny", "old")
    with pytest.raises(InvalidError, match="could not be replaced"):
        swap.install(tmp_path / "not-there", target, layout, CLOCK)
    assert word(target) == "old"
    assert names(layout.root) == ["tiny"]


def test_discard_is_gone_at_once(layout: Layout) -> None:
    path = directory(layout.root / "tiny", "old")
    seen: list[bool] = []
    swap.discard(path, layout, CLOCK, lambda _: seen.append(path.exists()))
    assert seen == [False]
    assert list(layout.staging_root.iterdir()) == []


class TestRecord:
    def test_round_trip(self, tmp_path: Path) -> None:
        record = ModelRecord("acme/tiny", "r2", "now", revision="c", asked="main")
        write_record(tmp_path, record)
        assert read_record(tmp_path) == record

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", "{}", '{"schema": 2}', '{"schema": 1, "model_id": 3}', '{"schema": 1, "model_id": "a"}',
         '{"schema": 1, "model_id": "a", "source": "b", "created_at": "c", "revision": 5}'],
    )  # fmt: skip
    def test_what_cannot_be_read_is_none(self, tmp_path: Path, content: str) -> None:
        (tmp_path / ".garrison-model.json").write_text(content)
        assert read_record(tmp_path) is None


@pytest.fixture(autouse=True)
def no_temporary_files_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert list(tmp_path.rglob("*.tmp")) == []
