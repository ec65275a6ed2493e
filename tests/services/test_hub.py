"""The source hf-hub against a real HTTP server with faults."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub import COMMIT, Fault, Hub

from garrison.base.errors import DiskFullError, FetchError, InvalidError, ModelInvalidError, ModelNotFoundError
from garrison.models.record import read_record
from garrison.models.request import ResolveRequest
from garrison.models.resolve import ResolvedModel, resolve
from garrison.models.sources.hf_hub import HfHubSource
from garrison.testing.clock import FakeClock
from garrison.testing.progress import MemoryProgress

pytestmark = pytest.mark.service
SHARD = "model-00001-of-00002.safetensors"
Asking = Callable[..., ResolveRequest]


@pytest.fixture
def fetch(hub: Hub, asking: Asking) -> Callable[..., ResolvedModel]:
    def run(
        model: str = "acme/tiny",
        *,
        timeout: float = 5.0,
        progress: Any = None,
        clock: FakeClock | None = None,
        **changes: Any,
    ) -> ResolvedModel:
        free = changes.pop("free_bytes", lambda _: 1 << 40)
        request = asking(model, sources=("hf-hub",), hf_endpoint=hub.url, **changes)
        source = HfHubSource(environ={}, read_timeout=timeout)
        return resolve(request, sources=[source], clock=clock or FakeClock(), progress=progress, free_bytes=free)

    return run


Fetch = Callable[..., ResolvedModel]


def test_a_model_is_fetched_checked_and_pinned(
    fetch: Fetch, hub: Hub, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    progress = MemoryProgress()
    found = fetch(progress=progress)
    assert found.path == tmp_path / "models" / "tiny"
    assert (found.source, found.revision) == ("hf-hub", COMMIT)
    assert {p.name: p.read_bytes() for p in found.path.iterdir() if p.name[0] != "."} == model_files
    record = read_record(found.path)
    assert record is not None
    assert (record.model_id, record.revision, record.source) == ("acme/tiny", COMMIT, "hf-hub")
    size = sum(map(len, model_files.values()))
    assert progress.transfers == [(5, size, 0)]
    assert progress.bytes == hub.bytes_served == size
    assert not progress.open
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == [".locks", ".staging", "tiny"]
    assert list((tmp_path / "models" / ".staging").iterdir()) == []
    assert all("garrison" in agent for agent in hub.agents)


def test_every_file_is_of_one_commit(fetch: Fetch, hub: Hub) -> None:
    fetch("acme/tiny@main")
    assert all(f"/resolve/{COMMIT}/" in path for path in hub.content_requests)


def test_a_revision_that_was_asked_for(fetch: Fetch, hub: Hub, model_files: dict[str, bytes]) -> None:
    old = "a" * 40
    hub.add("acme/tiny", {**model_files, "tokenizer.json": b'{"version": "0"}'}, old)
    hub.repos["acme/tiny"].default = COMMIT
    found = fetch(f"acme/tiny@{old}")
    assert found.revision == old
    assert (found.path / "tokenizer.json").read_bytes() == b'{"version": "0"}'


def test_only_what_an_engine_needs_is_fetched(fetch: Fetch, hub: Hub, model_files: dict[str, bytes]) -> None:
    spare = {
        "pytorch_model.bin": b"x",
        "original/consolidated.00.pth": b"x",
        "tf_model.h5": b"x",
        ".gitattributes": b"x",
    }
    hub.add("acme/tiny", {**model_files, **spare})
    found = fetch()
    assert {path.name for path in found.path.iterdir()} == {*model_files, ".garrison-model.json"}


def test_a_refused_download_is_not_fetched_again(
    fetch: Fetch, hub: Hub, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add("acme/tiny", {name: content for name, content in model_files.items() if name != "tokenizer.json"})
    for _ in range(2):
        with pytest.raises(ModelInvalidError, match="no tokenizer files") as caught:
            fetch()
        assert f"kept at {tmp_path}/models/.staging/" in str(caught.value.hint)
    served = hub.bytes_served
    assert len(hub.gets(SHARD)) == 1
    assert fetch(skip_tokenizer=True).path == tmp_path / "models" / "tiny"
    assert hub.bytes_served == served


def test_allow_patterns_replace_our_choice(fetch: Fetch, hub: Hub) -> None:
    with pytest.raises(ModelInvalidError, match=r"config\.json is missing|weight"):
        fetch(allow_patterns=("tokenizer*",))
    assert {path.rpartition("/")[2] for path in hub.content_requests} == {"tokenizer.json"}


class TestQuantizations:
    @pytest.fixture
    def gguf(self, hub: Hub) -> None:
        empty = b"GGUF" + (3).to_bytes(4, "little") + bytes(16)
        names = ["m-Q8_0.gguf", "m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf"]
        projectors = ["mmproj-F16.gguf", "mmproj-F32.gguf"]
        hub.add("acme/m-GGUF", dict.fromkeys([*names, *projectors], empty) | {"README.md": b"x"})

    @pytest.mark.usefixtures("gguf")
    @pytest.mark.parametrize(
        ("asked", "files"),
        [
            ("acme/m-GGUF:Q8_0", ["m-Q8_0.gguf"]),
            ("acme/m-GGUF:q4_k_m", ["m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf"]),
            ("acme/m-GGUF:latest", ["m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf"]),
            ("acme/m-GGUF/m-Q8_0.gguf", ["m-Q8_0.gguf"]),
        ],
    )
    def test_a_model_and_its_projector(self, fetch: Fetch, asking: Asking, asked: str, files: list[str]) -> None:
        found = fetch(asked)
        assert found.path.name == files[0]
        there = sorted(path.name for path in found.path.parent.iterdir() if path.name[0] != ".")
        assert there == [*files, "mmproj-F16.gguf"]
        assert resolve(asking(asked, sources=("local",))).path == found.path

    @pytest.mark.usefixtures("gguf")
    def test_two_quantizations_have_directories_of_their_own(self, fetch: Fetch) -> None:
        assert fetch("acme/m-GGUF:Q8_0").path.parent != fetch("acme/m-GGUF:Q4_K_M").path.parent

    @pytest.mark.usefixtures("gguf")
    @pytest.mark.parametrize(
        ("asked", "why"),
        [
            ("acme/m-GGUF:Q3_K", "no GGUF file of Q3_K"),
            ("acme/m-GGUF/m-Q4_K_M-00002-of-00002.gguf", "part 2 of a model of 2 files"),
            ("acme/m-GGUF", "2 GGUF models"),
        ],
    )
    def test_what_names_no_model(self, fetch: Fetch, hub: Hub, asked: str, why: str) -> None:
        with pytest.raises(InvalidError, match=why):
            fetch(asked)
        assert hub.content_requests == []


def test_of_two_sets_of_shards_the_index_tells_which_is_fetched(
    fetch: Fetch, hub: Hub, model_files: dict[str, bytes]
) -> None:
    other = {f"model-0000{n}-of-00001.safetensors": b"x" * 5000 for n in (1,)}
    hub.add("acme/tiny", {**model_files, **other})
    found = fetch()
    assert {path.name for path in found.path.iterdir() if path.name[0] != "."} == {*model_files} - {
        "model-00002-of-00002.safetensors"  # the index of this model names one shard
    }


class TestLimits:
    """Waits are those of a fake clock: it jumps."""

    LIMITS = (
        ({"Retry-After": "25"}, 25),
        ({"RateLimit": '"api";r=0;t=25', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, 25),
        ({"Retry-After": "3", "RateLimit": '"resolvers";r=0;t=25'}, 25),
        ({"Retry-After": "Thu, 01 Jan 2026 00:01:00 GMT"}, 60),
    )

    @pytest.mark.parametrize(("headers", "seconds"), LIMITS)
    @pytest.mark.parametrize("where", ["/api/models/", SHARD], ids=["listing", "file"])
    def test_it_waits_as_it_is_told_and_says_so(
        self, fetch: Fetch, hub: Hub, where: str, headers: dict[str, str], seconds: int
    ) -> None:
        hub.faults.append(Fault(where, "429", headers=headers))
        clock, progress = FakeClock(), MemoryProgress()
        assert fetch(clock=clock, progress=progress).source == "hf-hub"
        assert clock.monotonic() == pytest.approx(seconds, abs=0.5)
        (said,) = [facts["message"] for name, facts in progress.steps if name == "wait"]
        assert said == f"{hub.url} limits requests; waiting {seconds} s, as it asks"

    def test_a_wait_that_was_told_is_no_lost_try(self, fetch: Fetch, hub: Hub) -> None:
        hub.faults.append(Fault("/api/models/", "429", times=20, headers={"Retry-After": "30"}))
        assert fetch().source == "hf-hub"

    @pytest.mark.parametrize("where", ["/api/models/", SHARD], ids=["listing", "file"])
    def test_too_long_a_wait_is_an_error_that_says_how_long(self, fetch: Fetch, hub: Hub, where: str) -> None:
        hub.faults.append(Fault(where, "429", times=99, headers={"Retry-After": "3600"}))
        with pytest.raises(FetchError, match="asks to wait 3600 s") as caught:
            fetch()
        assert caught.value.details["retry_after"] == 3600
        assert len(hub.requests) < 12

    def test_waits_have_a_budget(self, fetch: Fetch, hub: Hub) -> None:
        hub.faults.append(Fault("/api/models/", "429", times=99, headers={"Retry-After": "300"}))
        with pytest.raises(FetchError, match="asks to wait 300 s"):
            fetch()
        assert len(hub.requests) == 4

    def test_without_a_word_it_is_tried_a_few_times(self, fetch: Fetch, hub: Hub) -> None:
        hub.faults.append(Fault("/api/models/", "429", times=99))
        with pytest.raises(FetchError, match="HTTP 429"):
            fetch()
        assert len(hub.requests) == 5


class TestFaults:
    @pytest.mark.parametrize("where", ["/api/models/", SHARD], ids=["listing", "file"])
    def test_401(self, fetch: Fetch, hub: Hub, where: str) -> None:
        hub.faults.append(Fault(where, "401", times=9))
        with pytest.raises(FetchError, match="HTTP 401") as caught:
            fetch()
        assert "HF_TOKEN" in str(caught.value.hint)

    @pytest.mark.parametrize("where", ["/api/models/", SHARD], ids=["listing", "file"])
    def test_403_gated(self, fetch: Fetch, hub: Hub, where: str) -> None:
        hub.faults.append(Fault(where, "gated", times=9))
        with pytest.raises(FetchError, match="is gated") as caught:
            fetch()
        assert f"Accept the licence at {hub.url}/acme/tiny and set HF_TOKEN" in str(caught.value.hint)
        assert caught.value.exit_code == 12

    def test_a_token_opens_a_gated_model_and_is_shown_nowhere(self, fetch: Fetch, hub: Hub, tmp_path: Path) -> None:
        hub.token = "hf_secret"
        hub.faults.append(Fault(SHARD, "500", times=1))
        assert fetch(hf_token="hf_secret", keep_logs=True).source == "hf-hub"
        logs = [path.read_text() for path in tmp_path.rglob("*.log")]
        assert logs
        assert not any("hf_secret" in log for log in logs)

    def test_404_repository(self, fetch: Fetch) -> None:
        with pytest.raises(ModelNotFoundError, match="acme/other does not exist") as caught:
            fetch("acme/other")
        assert caught.value.exit_code == 10

    def test_404_revision(self, fetch: Fetch) -> None:
        with pytest.raises(ModelNotFoundError, match="has no revision v9"):
            fetch("acme/tiny@v9")

    def test_404_file_that_was_listed(self, fetch: Fetch, hub: Hub) -> None:
        hub.faults.append(Fault(SHARD, "404", times=9))
        with pytest.raises(FetchError, match="HTTP 404"):
            fetch()

    @pytest.mark.parametrize("where", ["/api/models/", SHARD], ids=["listing", "file"])
    def test_500_then_200(self, fetch: Fetch, hub: Hub, where: str) -> None:
        hub.faults.append(Fault(where, "500", times=3))
        assert fetch().source == "hf-hub"

    @pytest.mark.parametrize("where", ["/api/models/", SHARD], ids=["listing", "file"])
    def test_500_for_good(self, fetch: Fetch, hub: Hub, where: str) -> None:
        hub.faults.append(Fault(where, "500", times=99))
        with pytest.raises(FetchError) as caught:
            fetch()
        assert caught.value.exit_code == 12
        assert len([path for path, _ in hub.requests if where in path]) == 5

    def test_cut_mid_file_goes_on_by_range(self, fetch: Fetch, hub: Hub, model_files: dict[str, bytes]) -> None:
        hub.faults.append(Fault(SHARD, "cut", at=200_000))
        progress = MemoryProgress()
        found = fetch(progress=progress)
        assert (found.path / SHARD).read_bytes() == model_files[SHARD]
        first, second = hub.gets(SHARD)
        assert first is None
        assert second is not None
        assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 200_000
        assert progress.bytes == sum(map(len, model_files.values()))

    def test_cut_for_good_is_resumed_by_the_next_run(
        self, fetch: Fetch, hub: Hub, model_files: dict[str, bytes]
    ) -> None:
        hub.faults.append(Fault(SHARD, "cut", at=150_000))
        hub.faults.append(Fault(SHARD, "500", times=5))
        with pytest.raises(FetchError):
            fetch()
        hub.requests.clear()
        before = hub.bytes_served
        assert (fetch().path / SHARD).read_bytes() == model_files[SHARD]
        (asked,) = hub.gets(SHARD)
        assert asked is not None
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        assert start > 0
        assert hub.gets("config.json") == []
        assert hub.bytes_served - before == len(model_files[SHARD]) - start

    def test_a_new_commit_between_two_runs_starts_what_changed_over(
        self, fetch: Fetch, hub: Hub, model_files: dict[str, bytes]
    ) -> None:
        hub.faults += [Fault(SHARD, "cut", at=150_000), Fault(SHARD, "500", times=5)]
        with pytest.raises(FetchError):
            fetch()
        changed = {**model_files, SHARD: model_files[SHARD][:-1] + b"!"}
        changed.pop("model.safetensors.index.json")
        changed["notes.txt"] = b"new"
        hub.add("acme/tiny", changed, "d" * 40)
        hub.requests.clear()
        found = fetch()
        assert hub.gets(SHARD) == [None]
        assert {p.name: p.read_bytes() for p in found.path.iterdir() if p.name[0] != "."} == changed

    def test_wrong_length_short(self, fetch: Fetch, hub: Hub, model_files: dict[str, bytes]) -> None:
        hub.faults.append(Fault(SHARD, "short", at=1000))
        assert (fetch().path / SHARD).read_bytes() == model_files[SHARD]

    def test_wrong_length_long(self, fetch: Fetch, hub: Hub) -> None:
        hub.faults.append(Fault(SHARD, "long", times=9))
        with pytest.raises(FetchError, match="sends more of"):
            fetch()

    def test_slow_counts_as_a_failed_try(self, fetch: Fetch, hub: Hub) -> None:
        hub.faults.append(Fault(SHARD, "stall", at=1000, seconds=1.5))
        assert fetch(timeout=0.3).source == "hf-hub"
        assert len(hub.gets(SHARD)) == 2

    def test_slow_listing(self, fetch: Fetch, hub: Hub) -> None:
        hub.faults.append(Fault("/api/models/", "slow", seconds=1.0))
        assert fetch(timeout=0.3).source == "hf-hub"

    def test_changed_bytes_are_seen_and_fetched_again(
        self, fetch: Fetch, hub: Hub, model_files: dict[str, bytes]
    ) -> None:
        hub.faults.append(Fault(SHARD, "corrupt"))
        progress = MemoryProgress()
        assert (fetch(progress=progress).path / SHARD).read_bytes() == model_files[SHARD]
        assert progress.bytes == sum(map(len, model_files.values()))

    @pytest.mark.parametrize("name", [SHARD, "config.json"], ids=["sha256", "git blob"])
    def test_changed_bytes_for_good(self, fetch: Fetch, hub: Hub, name: str) -> None:
        hub.faults.append(Fault(name, "corrupt", times=9))
        with pytest.raises(FetchError, match="does not match its digest"):
            fetch()

    def test_a_login_page_in_the_hub_s_place(self, fetch: Fetch, hub: Hub) -> None:
        hub.faults.append(Fault("/api/models/", "html", times=9))
        with pytest.raises(FetchError, match="does not behave like a hub"):
            fetch()

    def test_nobody_listens(self, asking: Asking) -> None:
        request = asking(sources=("hf-hub",), hf_endpoint="http://127.0.0.1:9")
        with pytest.raises(FetchError, match="could not be fetched"):
            resolve(request, sources=[HfHubSource(environ={})], clock=FakeClock())

    def test_a_mirror_without_sizes(self, fetch: Fetch, hub: Hub, model_files: dict[str, bytes]) -> None:
        hub.sizes = False
        assert (fetch().path / SHARD).read_bytes() == model_files[SHARD]

    def test_a_mirror_without_sizes_that_refuses_to_tell_them(self, fetch: Fetch, hub: Hub) -> None:
        hub.sizes = False
        hub.faults.append(Fault("/resolve/", "401", times=9))
        with pytest.raises(FetchError, match="rejects the request"):
            fetch()

    @pytest.mark.parametrize(
        "endpoint", ["hub.local", "ftp://hub.local", "http://[::1", "http://hub:port", "http:///x"]
    )
    def test_an_endpoint_that_is_no_url(self, asking: Asking, endpoint: str) -> None:
        request = asking(sources=("hf-hub",), hf_endpoint=endpoint)
        with pytest.raises(InvalidError, match="HF_ENDPOINT must be a URL"):
            resolve(request, sources=[HfHubSource(environ={})], clock=FakeClock())

    @pytest.mark.parametrize("name", ["../evil.json", "a/../../evil.json", "/evil.json"])
    def test_a_name_that_leads_out_is_refused(
        self, fetch: Fetch, hub: Hub, model_files: dict[str, bytes], tmp_path: Path, name: str
    ) -> None:
        hub.add("acme/tiny", {**model_files, name: b"{}"})
        with pytest.raises(FetchError, match="cannot be stored"):
            fetch()
        assert not list(tmp_path.rglob("evil.json"))


def test_an_incomplete_repository_is_invalid(
    fetch: Fetch, hub: Hub, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add("acme/tiny", {name: content for name, content in model_files.items() if name != "config.json"})
    with pytest.raises(ModelInvalidError, match=r"config\.json") as caught:
        fetch()
    assert caught.value.exit_code == 11
    assert not (tmp_path / "models" / "tiny").exists()
    hub.add("acme/tiny", model_files)
    assert fetch().source == "hf-hub"


def test_disk_full_is_said_before_the_download(fetch: Fetch, hub: Hub) -> None:
    with pytest.raises(DiskFullError) as caught:
        fetch(free_bytes=lambda _: 1000)
    assert caught.value.exit_code == 14
    assert caught.value.details["free_bytes"] == 1000
    assert caught.value.details["needed_bytes"] > 500_000
    assert hub.content_requests == []


class TestGguf:
    @pytest.fixture(autouse=True)
    def repository(self, hub: Hub, tmp_path: Path) -> None:
        hub.add("acme/gguf", {f"tiny-{quant}.gguf": tiny_gguf() for quant in ("q4", "q8")} | {"README.md": b"#"})

    def test_one_is_to_be_named(self, fetch: Fetch) -> None:
        with pytest.raises(InvalidError, match="2 GGUF models") as caught:
            fetch("acme/gguf")
        assert "ORG/NAME/tiny-q4.gguf" in str(caught.value.hint)

    def test_only_the_named_file_is_fetched(self, fetch: Fetch, hub: Hub, tmp_path: Path) -> None:
        found = fetch("acme/gguf/tiny-q8.gguf")
        assert found.path == tmp_path / "models" / "gguf--tiny-q8" / "tiny-q8.gguf"
        assert hub.gets("tiny-q4.gguf") == []


def tiny_gguf() -> bytes:
    import struct

    text = b"general.architecture"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(text)) + text
    return head + struct.pack("<I", 8) + struct.pack("<Q", 5) + b"llama" + bytes(64)


class TestLogs:
    def test_gone_after_success(self, fetch: Fetch, hub: Hub, tmp_path: Path) -> None:
        hub.faults.append(Fault(SHARD, "500"))
        fetch()
        assert not list(tmp_path.rglob("*.log"))

    def test_kept_after_success_when_asked_for(self, fetch: Fetch, hub: Hub, tmp_path: Path) -> None:
        hub.faults.append(Fault(SHARD, "500"))
        fetch(keep_logs=True)
        (log,) = tmp_path.rglob("*.log")
        assert "500" in log.read_text()

    def test_always_kept_after_failure(self, fetch: Fetch, hub: Hub, tmp_path: Path) -> None:
        hub.faults.append(Fault(SHARD, "500", times=99))
        with pytest.raises(FetchError):
            fetch()
        (log,) = tmp_path.rglob("*.log")
        assert SHARD in log.read_text()


def test_ctrl_c_ends_at_once_and_leaves_nothing_half_visible(
    hub: Hub, asking: Asking, tmp_path: Path, model_files: dict[str, bytes]
) -> None:
    class Interrupting(MemoryProgress):
        def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
            super().started(files, total, done)
            raise KeyboardInterrupt

    request = asking(sources=("hf-hub",), hf_endpoint=hub.url)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        resolve(request, sources=[HfHubSource(environ={})], clock=FakeClock(), progress=Interrupting())
    assert not (tmp_path / "models" / "tiny").exists()
    assert threading.active_count() < before + 20
    assert resolve(request, sources=[HfHubSource(environ={})], clock=FakeClock()).source == "hf-hub"
