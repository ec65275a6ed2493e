"""Stopping a resolve in the middle of a download, and several resolves in one process."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub import Fault, Hub
from s3 import BUCKET, S3
from s3 import Fault as S3Fault

from garrison.base.clock import SystemClock
from garrison.base.locks import file_lock
from garrison.models.files.broadcast import Broadcast
from garrison.models.files.stop_token import StoppedError, StopToken
from garrison.models.request import ResolveRequest
from garrison.models.resolve import resolve
from garrison.models.sources import hf_hub, hub_client, r2
from garrison.models.sources.hf_hub import HfHubSource
from garrison.models.sources.r2 import R2Source
from garrison.models.sources.source import Source
from garrison.models.sources.staging import RemoteFile, Staging
from garrison.testing.clock import FakeClock
from garrison.testing.progress import MemoryProgress

pytestmark = pytest.mark.service
SHARD = "model-00001-of-00002.safetensors"
Asking = Callable[..., ResolveRequest]
SOON = 5.0
"""Seconds; far below the time-outs of requests, which a stop must not wait for."""


class Stopping(MemoryProgress):
    def __init__(self, stop: StopToken, after: int = 100_000, times: int = 1) -> None:
        super().__init__()
        self._stop, self._after, self._times = stop, after, times

    def advanced(self, count: int) -> None:
        super().advanced(count)
        if self.bytes > self._after:
            for _ in range(self._times):
                self._stop.stop()


@pytest.fixture(params=["hf-hub", "r2"])
def source(request: pytest.FixtureRequest, hub: Hub, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(r2, "_CHUNK", 64 * 1024)
    monkeypatch.setattr(r2, "_WINDOW", 2)
    kinds: dict[str, Source] = {"hf-hub": HfHubSource(environ={}), "r2": R2Source(retry_budget=3.0)}
    return kinds[request.param]


@pytest.fixture
def ask(asking: Asking, hub: Hub, s3: S3) -> Asking:
    place = {"r2_bucket": BUCKET, "r2_prefix": "prefix", "r2_endpoint": s3.url, "hf_endpoint": hub.url}
    return lambda model="acme/tiny", **changes: asking(model, **(place | changes))


def requests_of(source: Source, hub: Hub, s3: S3) -> int:
    return len(hub.requests if source.name == "hf-hub" else s3.requests)


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_a_stop_in_the_middle_keeps_what_can_be_resumed(
    source: Source, ask: Asking, hub: Hub, s3: S3, model_files: dict[str, bytes], tmp_path: Path, times: int
) -> None:
    stop = StopToken()
    progress = Stopping(stop, times=times)
    with pytest.raises(StoppedError) as caught:
        resolve(ask(), sources=[source], progress=progress, stop=stop)
    assert caught.value.left == ()
    assert not progress.open
    assert not (tmp_path / "models" / "tiny").exists()
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file() and is_content(path, model_files))
    assert kept == progress.bytes
    assert kept < sum(map(len, model_files.values()))
    for part in tmp_path.rglob("*.part"):
        assert model_files[part.name.removesuffix(".part")].startswith(part.read_bytes())
    with file_lock(ask().layout.lock_path("acme/tiny"), timeout=0, purpose="tests"):
        pass

    time.sleep(0.2)  # a request that was cut off may reach the server late
    before, again = requests_of(source, hub, s3), MemoryProgress()
    time.sleep(0.2)
    assert requests_of(source, hub, s3) == before
    found = resolve(ask(), sources=[source], progress=again)
    assert {path.name: path.read_bytes() for path in found.path.iterdir() if path.name[0] != "."} == model_files
    assert again.transfers[0][2] == kept


def test_a_stop_ends_at_the_next_chunk_where_a_connection_cannot_be_broken(
    ask: Asking, hub: Hub, model_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "_interrupt", lambda response: None)
    monkeypatch.setattr(hf_hub, "_WORKERS", 1)  # the largest file is the first
    stop = StopToken()
    progress = Stopping(stop, after=1)
    with pytest.raises(StoppedError):
        resolve(ask(), sources=[HfHubSource(environ={})], progress=progress, stop=stop)
    assert 0 < progress.bytes < len(model_files[SHARD])


def test_no_range_is_written_after_a_stop(tmp_path: Path) -> None:
    stop, staging = StopToken(), Staging(tmp_path / "staging" / "acme" / "r2")
    file = RemoteFile("a.bin", 4, "tag")
    (item,) = staging.prepare([file], lambda _: 1 << 40)
    writer = r2._Writer(staging, MemoryProgress(), stop)
    writer.write(r2._Range(item, 0, 2), b"ab")
    stop.stop()
    with pytest.raises(StoppedError):
        writer.write(r2._Range(item, 2, 4), b"cd")
    writer.close()
    assert staging.part(file).read_bytes() == b"ab"


def is_content(path: Path, files: dict[str, bytes]) -> bool:
    return path.name.removesuffix(".part") in files


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_a_stop_before_the_start_asks_nobody(
    source: Source, ask: Asking, hub: Hub, s3: S3, tmp_path: Path, times: int
) -> None:
    stop = StopToken()
    for _ in range(times):
        stop.stop()
    with pytest.raises(StoppedError):
        resolve(ask(), sources=[source], stop=stop)
    assert requests_of(source, hub, s3) == 0
    assert not (tmp_path / "models").exists()


class TestSilence:
    """A peer that says nothing must not hold up a stop for as long as its time-outs."""

    @pytest.fixture(params=["listing", "file"])
    def silent(self, request: pytest.FixtureRequest, source: Source, hub: Hub, s3: S3) -> Source:
        where = {"listing": ("/api/models/", "list-type"), "file": (SHARD, SHARD)}[request.param]
        hub.faults.append(Fault(where[0], "stall" if request.param == "file" else "slow", at=50_000, seconds=20.0))
        s3.faults.append(S3Fault(where[1], "slow", seconds=20.0, times=99))
        return source

    def test_a_stop_ends_the_wait(self, silent: Source, ask: Asking, hub: Hub, s3: S3, until: Any) -> None:
        stop, ended = StopToken(), list[StoppedError]()

        def run() -> None:
            try:
                resolve(ask(), sources=[silent], stop=stop, clock=SystemClock())
            except StoppedError as error:
                ended.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: requests_of(silent, hub, s3) > 0)
        time.sleep(0.5)
        since = time.monotonic()
        stop.stop(within=SOON)
        thread.join(20)
        assert time.monotonic() - since < SOON
        assert len(ended) == 1

    def test_a_pause_between_two_tries_ends_too(self, ask: Asking, hub: Hub) -> None:
        hub.faults.append(Fault("/api/models/", "500", times=99))
        stop = StopToken()

        class StopsAt(FakeClock):
            def sleep(self, seconds: float) -> None:
                super().sleep(seconds)
                if self.monotonic() > 1.0:
                    stop.stop()

        clock = StopsAt()
        with pytest.raises(StoppedError):
            resolve(ask(), sources=[HfHubSource(environ={})], stop=stop, clock=clock)
        assert clock.monotonic() < 1.5


def test_a_thread_that_waits_for_headers_is_left_behind_and_writes_nothing_later(
    ask: Asking, hub: Hub, tmp_path: Path, model_files: dict[str, bytes]
) -> None:
    hub.faults.append(Fault(SHARD, "slow", seconds=2.0))
    stop = StopToken()
    timer = threading.Timer(0.7, lambda: stop.stop(within=0.1))
    timer.start()
    with pytest.raises(StoppedError) as caught:
        resolve(ask(), sources=[HfHubSource(environ={})], stop=stop)
    assert len(caught.value.left) == 1
    assert caught.value.left[0].startswith("hf-hub-")
    (part,) = tmp_path.rglob(f"{SHARD}.part")
    (left,) = [thread for thread in threading.enumerate() if thread.name == caught.value.left[0]]
    left.join(10)
    assert not left.is_alive()
    assert part.stat().st_size == 0
    log = next(tmp_path.rglob("hf-hub.log")).read_text()
    assert f"left behind, waiting for the network: {left.name}" in log
    assert resolve(ask(), sources=[HfHubSource(environ={})]).source == "hf-hub"


def test_a_stop_while_another_command_downloads_the_model(ask: Asking, tmp_path: Path) -> None:
    stop = StopToken()

    class StopsAt(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.monotonic() > 2.0:
                stop.stop()

    request, clock = ask(lock_timeout=300.0), StopsAt()
    with file_lock(request.layout.lock_path("acme/tiny"), timeout=0, purpose="tests"), pytest.raises(StoppedError):
        resolve(request, stop=stop, clock=clock)
    assert clock.monotonic() < 3.0


@pytest.mark.parametrize("step", ["before-check", "before-record"])
def test_a_stop_while_a_download_is_checked_keeps_it_for_the_next_run(
    ask: Asking, hub: Hub, tmp_path: Path, step: str
) -> None:
    stop = StopToken()
    with pytest.raises(StoppedError):
        resolve(
            ask(),
            sources=[HfHubSource(environ={})],
            stop=stop,
            at=lambda now: stop.stop() if now == step else None,
        )
    assert not (tmp_path / "models" / "tiny").exists()
    served = hub.bytes_served
    assert resolve(ask(), sources=[HfHubSource(environ={})]).source == "hf-hub"
    assert hub.bytes_served == served


@pytest.mark.parametrize("step", ["before-backup", "before-rename", "before-cleanup", "done"])
def test_a_stop_during_the_renames_comes_too_late(ask: Asking, tmp_path: Path, step: str) -> None:
    stop = StopToken()
    found = resolve(
        ask(), sources=[HfHubSource(environ={})], stop=stop, at=lambda now: stop.stop() if now == step else None
    )
    assert stop.stopped
    assert (found.path / "config.json").exists()


def test_two_resolves_at_once_have_their_own_progress_and_their_own_logs(
    ask: Asking, hub: Hub, model_files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One from the hub and one from the store, each with a fault that its log must name, and the other's must not."""
    monkeypatch.setattr(r2, "_CHUNK", 64 * 1024)
    hub.add("acme/other", {**model_files, "only-in-other.json": b"{}"})
    hub.faults += [Fault("acme/other/resolve", "500"), Fault("/acme/tiny/resolve", "cut", at=0, times=0)]
    kinds: dict[str, Callable[[], Source]] = {
        "acme/other": lambda: HfHubSource(environ={}),
        "acme/tiny": lambda: R2Source(retry_budget=3.0),
    }
    both, told, found = threading.Barrier(2), {name: MemoryProgress() for name in kinds}, dict[str, Path]()

    class Together(MemoryProgress):
        def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
            both.wait(20)

    def run(name: str) -> None:
        with Broadcast(told[name]) as progress:
            pair = _Both(progress, Together())
            found[name] = resolve(ask(name, keep_logs=True), sources=[kinds[name]()], progress=pair).path

    threads = [threading.Thread(target=run, args=(name,)) for name in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    size = sum(map(len, model_files.values()))
    assert told["acme/tiny"].transfers == [(5, size, 0)]
    assert told["acme/other"].transfers == [(6, size + 2, 0)]
    assert (told["acme/tiny"].bytes, told["acme/other"].bytes) == (size, size + 2)
    (of_hub,), (of_store,) = tmp_path.rglob("hf-hub.log"), tmp_path.rglob("r2.log")
    assert "acme/other" in of_hub.read_text()
    assert "500" in of_hub.read_text()
    assert "s3://" not in of_hub.read_text()
    assert "s3://" in of_store.read_text()
    assert "acme/other" not in of_store.read_text()
    assert {path.name for path in found.values()} == {"tiny", "other"}


class _Both:
    """Tells two listeners, the second of them in the thread that works."""

    def __init__(self, *listeners: Any) -> None:
        self._listeners = listeners

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **options: (
            [getattr(one, name)(*arguments, **options) for one in self._listeners] and None
        )


def test_one_of_two_resolves_is_stopped_and_the_other_is_not(ask: Asking, hub: Hub, tmp_path: Path) -> None:
    hub.add("acme/other", hub.repos["acme/tiny"].commits[hub.repos["acme/tiny"].default])
    stop, results = StopToken(), dict[str, object]()
    halfway = threading.Event()

    class Waiting(MemoryProgress):
        def advanced(self, count: int) -> None:
            super().advanced(count)
            halfway.wait(20)

    def run(name: str, **options: Any) -> None:
        try:
            results[name] = resolve(ask(name), sources=[HfHubSource(environ={})], **options).path
        except StoppedError as error:
            results[name] = error

    other = threading.Thread(target=run, args=("acme/other",), kwargs={"progress": Waiting()})
    other.start()
    run("acme/tiny", progress=Stopping(stop), stop=stop)
    halfway.set()
    other.join(30)
    assert isinstance(results["acme/tiny"], StoppedError)
    assert results["acme/other"] == tmp_path / "models" / "other"


def test_a_listener_that_fails_does_not_end_the_download(source: Source, ask: Asking) -> None:
    class Broken(MemoryProgress):
        def advanced(self, count: int) -> None:
            raise BrokenPipeError(32, "nobody reads")

    assert resolve(ask(), sources=[source], progress=Broken()).source == source.name
