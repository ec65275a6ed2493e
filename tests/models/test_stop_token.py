"""The token itself, and every local step that reads or writes bytes: each ends at its next chunk."""

import gzip
import io
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import GarrisonError
from garrison.base.locks import file_lock
from garrison.models.adapters.library import import_adapter, verify_adapter
from garrison.models.files import copying, hashing
from garrison.models.files.archive import unpack
from garrison.models.files.copying import copy_files
from garrison.models.files.hashing import hash_files
from garrison.models.files.stop_token import StoppableClock, StoppedError, StopToken, join_all
from garrison.models.layout import Layout
from garrison.models.library import import_model, list_models, verify_model
from garrison.models.sources.side_by_side import aside, side_by_side
from garrison.testing.clock import FakeClock
from garrison.testing.progress import MemoryProgress


class Stopping(MemoryProgress):
    """Stops the token once so many bytes have arrived."""

    def __init__(self, stop: StopToken, after: int = 1, doing: str | None = None) -> None:
        super().__init__()
        self._stop = stop
        self._after = after
        self._doing = doing
        self._now: str | None = None
        self.total = self.since = 0

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        super().started(files, total, done)
        self._now, self.total, self.since = doing, total, 0

    def advanced(self, count: int) -> None:
        super().advanced(count)
        self.since += count
        if self.bytes >= self._after and self._doing in (None, self._now):
            self._stop.stop()


class TestToken:
    def test_it_starts_unstopped_and_never_resets(self) -> None:
        stop = StopToken(FakeClock())
        stop.check()
        assert (stop.stopped, stop.seconds_left) == (False, float("inf"))
        stop.stop()
        assert stop.stopped
        with pytest.raises(StoppedError):
            stop.check()

    def test_a_second_stop_can_shorten_the_deadline_and_not_extend_it(self) -> None:
        clock = FakeClock()
        stop = StopToken(clock)
        stop.stop(within=8.0)
        stop.stop(within=60.0)
        assert stop.seconds_left == 8.0
        stop.stop(within=2.0)
        assert stop.seconds_left == 2.0
        clock.advance(3.0)
        assert stop.seconds_left == 0.0

    def test_callbacks_are_called_once_and_not_after_they_are_withdrawn(self) -> None:
        stop, called = StopToken(), list[str]()
        withdraw = stop.on_stop(lambda: called.append("withdrawn"))
        stop.on_stop(lambda: called.append("kept"))
        withdraw()
        stop.stop()
        stop.stop()
        assert called == ["kept"]
        stop.on_stop(lambda: called.append("late"))
        assert called == ["kept", "late"]

    def test_a_parent_stops_its_child_and_not_the_other_way_round(self) -> None:
        clock, called = FakeClock(), list[str]()
        parent = StopToken(clock)
        first, second = StopToken(clock, parent=parent), StopToken(clock, parent=parent)
        first.on_stop(lambda: called.append("first"))
        second.on_stop(lambda: called.append("second"))
        first.stop(within=30.0)
        assert (first.stopped, parent.stopped, second.stopped) == (True, False, False)
        parent.stop(within=5.0)
        assert (second.stopped, first.seconds_left) == (True, 5.0)
        assert "second" in called

    def test_a_sleep_ends_with_the_stop(self) -> None:
        clock = FakeClock()
        stop = StopToken(clock)

        class StopsAt(FakeClock):
            def sleep(self, seconds: float) -> None:
                super().sleep(seconds)
                if self.monotonic() >= 1.0:
                    stop.stop()

        sleeping = StopsAt()
        with pytest.raises(StoppedError):
            StoppableClock(sleeping, stop).sleep(300.0)
        assert sleeping.monotonic() < 1.3
        with pytest.raises(StoppedError):
            StoppableClock(sleeping, stop).sleep(0)

    def test_a_sleep_without_a_stop_takes_its_time(self) -> None:
        clock = FakeClock()
        StoppableClock(clock, StopToken()).sleep(2.5)
        assert clock.monotonic() == pytest.approx(2.5)


class TestThreads:
    def test_a_thread_that_hangs_is_left_behind_at_the_deadline_and_named(self) -> None:
        stop, release = StopToken(), threading.Event()
        hanging = threading.Thread(target=release.wait, name="hangs", daemon=True)
        hanging.start()
        stop.stop(within=0.05)
        assert join_all([hanging], stop) == ("hangs",)
        release.set()
        hanging.join(5)
        assert join_all([hanging], stop) == ()

    def test_each_item_is_worked_on_once(self) -> None:
        lock, done = threading.Lock(), list[int]()

        def work(item: int, _: StopToken) -> None:
            with lock:
                done.append(item)

        side_by_side(range(50), work, StopToken(), workers=4, name="t")
        assert sorted(done) == list(range(50))
        side_by_side([], work, StopToken(), workers=4, name="t")

    def test_the_first_error_stops_the_others_and_is_raised(self) -> None:
        started = threading.Barrier(2)

        def work(item: str, stop: StopToken) -> None:
            started.wait(5)
            if item == "fails":
                raise ValueError(item)
            ended = threading.Event()
            stop.on_stop(ended.set)
            assert ended.wait(5)

        outer = StopToken()
        with pytest.raises(ValueError, match="fails"):
            side_by_side(["fails", "waits"], work, outer, workers=2, name="t")
        assert not outer.stopped

    def test_a_stop_names_what_it_leaves_behind(self) -> None:
        stop, release, running = StopToken(), threading.Event(), threading.Event()

        def hang() -> None:
            running.set()
            release.wait(20)

        def stop_then() -> None:
            running.wait(5)
            stop.stop(within=0.05)

        threading.Thread(target=stop_then, daemon=True).start()
        with pytest.raises(StoppedError) as caught:
            side_by_side([hang], lambda call, _: call(), stop, workers=1, name="hub")
        assert caught.value.left == ("hub-0",)
        release.set()

    def test_aside_returns_or_raises_what_the_call_does(self) -> None:
        assert aside(lambda: 7, StopToken(), "t") == 7

        def fail() -> None:
            raise KeyError("x")

        with pytest.raises(KeyError):
            aside(fail, StopToken(), "t")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, int]:
    (tmp_path / "from").mkdir()
    sizes = {"a": 3_000_000, "b": 2_000_000, "c": 1_000_000}
    for name, size in sizes.items():
        (tmp_path / "from" / name).write_bytes(bytes(size))
    return sizes


class TestFiles:
    def test_copying_ends_at_the_next_chunk(
        self, tmp_path: Path, files: dict[str, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(copying, "_CHUNK_BYTES", 1_000_000)
        monkeypatch.setattr(copying, "_shares", lambda read, write: False)
        stop = StopToken()
        progress = Stopping(stop, 1_500_000)
        with pytest.raises(StoppedError):
            copy_files(tmp_path / "from", tmp_path / "to", files, progress=progress, stop=stop)
        assert progress.bytes == 2_000_000
        assert not progress.open
        assert (tmp_path / "to").stat().st_mode & 0o077 == 0

    def test_hashing_ends_at_the_next_chunk(
        self, tmp_path: Path, files: dict[str, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hashing, "_REPORT_BYTES", 1)
        stop = StopToken()
        progress = Stopping(stop)
        with pytest.raises(StoppedError):
            hash_files(tmp_path / "from", files, progress=progress, threads=1, stop=stop)
        assert 0 < progress.bytes < 3_000_000
        assert not progress.open

    def test_hashing_does_not_wait_for_a_read_that_hangs(
        self, tmp_path: Path, files: dict[str, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stop, release = StopToken(), threading.Event()

        def hang(*_: Any) -> int:
            stop.stop(within=0.05)
            release.wait(20)
            raise OSError(5, "gone")

        monkeypatch.setattr(hashing, "open_file", hang)
        with pytest.raises(StoppedError) as caught:
            hash_files(tmp_path / "from", files, threads=1, stop=stop)
        assert caught.value.left == ("hash-0",)
        release.set()

    def test_unpacking_ends_at_the_next_chunk(self, tmp_path: Path) -> None:
        path = tmp_path / "m.tar"
        with tarfile.open(path, "w") as archive:
            for name in ("a", "b"):
                info = tarfile.TarInfo(name)
                info.size = 4_000_000
                archive.addfile(info, io.BytesIO(os.urandom(info.size)))
        stop = StopToken()
        progress = Stopping(stop)
        with pytest.raises(StoppedError):
            unpack(path, tmp_path / "out", progress=progress, stop=stop)
        assert progress.bytes < 4_000_000
        assert not progress.open

    def test_unpacking_ends_within_a_member_that_is_skipped(self, tmp_path: Path) -> None:
        """A hidden file is not unpacked, but all of it is decompressed to find the next header."""
        path = tmp_path / "m.tar.gz"
        info = tarfile.TarInfo(".hidden")
        info.size = 1 << 40
        with gzip.open(path, "wb", compresslevel=1) as out:
            out.write(info.tobuf())
            for _ in range(300):
                out.write(bytes(1 << 20))
        stop = StopToken()
        reads: list[int] = []
        real = stop.check

        def check() -> None:
            reads.append(1)
            if len(reads) == 10:
                stop.stop()
            real()

        stop.check = check  # type: ignore[method-assign]  # the test's own
        with pytest.raises(StoppedError):
            unpack(path, tmp_path / "out", stop=stop)
        assert len(reads) == 10


class TestLibrary:
    @pytest.mark.parametrize("doing", ["copying", "hashing"])
    @pytest.mark.parametrize("kind", ["model", "adapter"])
    def test_a_stopped_import_leaves_the_library_as_it_was(
        self, tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch, kind: str, doing: str
    ) -> None:
        monkeypatch.setattr(copying, "_shares", lambda read, write: False)
        layout = Layout(root=tmp_path / "models", data_dir=tmp_path / "data")
        origin = (make.model if kind == "model" else make.adapter)(tmp_path / "tiny")
        for number in range(20):
            (origin / f"note-{number}.txt").write_bytes(bytes(1000))
        bring: Callable[..., Any] = import_model if kind == "model" else import_adapter
        stop = StopToken()
        progress = Stopping(stop, doing=doing)
        with pytest.raises(StoppedError):
            bring(layout, origin, progress=progress, stop=stop)
        assert 0 < progress.since < progress.total
        home = layout.root if kind == "model" else layout.adapters
        left = [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"]
        assert left == []
        with file_lock(layout.lock_path("tiny" if kind == "model" else "adapters/tiny"), timeout=0, purpose="tests"):
            pass
        assert bring(layout, origin).changed

    def test_an_import_of_a_tar_leaves_nothing_either(self, tmp_path: Path, make: Any) -> None:
        layout = Layout(root=tmp_path / "models", data_dir=tmp_path / "data")
        with tarfile.open(tmp_path / "tiny.tar", "w") as archive:
            archive.add(make.model(tmp_path / "tiny"), "tiny")
        stop = StopToken()
        with pytest.raises(StoppedError):
            import_model(layout, tmp_path / "tiny.tar", progress=Stopping(stop, doing="unpacking"), stop=stop)
        assert list_models(layout) == []
        assert [path for path in layout.root.rglob("*") if path.is_file() and path.suffix != ".lock"] == []

    def test_a_stopped_verification_records_nothing(self, tmp_path: Path, make: Any) -> None:
        layout = Layout(root=tmp_path / "models", data_dir=tmp_path / "data")
        make.model(layout.root / "tiny")
        make.adapter(layout.adapters / "sql")
        stop = StopToken()
        stop.stop()
        for verification in (
            lambda: verify_model(layout, "tiny", stop=stop),
            lambda: verify_adapter(layout, "sql", stop=stop),
        ):
            with pytest.raises(StoppedError):
                verification()
        assert not list(tmp_path.rglob(".garrison.sha256"))

    def test_an_import_that_waits_for_the_lock_can_be_stopped(self, tmp_path: Path, make: Any) -> None:
        layout = Layout(root=tmp_path / "models", data_dir=tmp_path / "data")
        origin, stop = make.model(tmp_path / "tiny"), StopToken()

        class StopsAt(FakeClock):
            def sleep(self, seconds: float) -> None:
                super().sleep(seconds)
                if self.monotonic() > 2:
                    stop.stop()

        clock = StopsAt()
        with file_lock(layout.lock_path("tiny"), timeout=0, purpose="tests"), pytest.raises(StoppedError):
            import_model(layout, origin, clock=clock, lock_timeout=300.0, stop=stop)
        assert clock.monotonic() < 3
        held = {str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
        assert str(layout.lock_path("tiny")) not in held


def test_a_stop_is_no_error_of_the_tree() -> None:
    """Nothing that catches errors may take a stop for a source that failed."""
    assert not issubclass(StoppedError, GarrisonError)
    assert not issubclass(StoppedError, OSError)
