"""The source r2 against a real S3 server with faults."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3 import BUCKET, S3, Fault

from garrison.base.errors import DiskFullError, FetchError, InvalidError, ModelInvalidError, ModelNotFoundError
from garrison.models.request import ResolveRequest
from garrison.models.resolve import ResolvedModel, resolve
from garrison.models.sources import r2
from garrison.models.sources.r2 import R2Source
from garrison.testing.clock import FakeClock
from garrison.testing.progress import MemoryProgress

pytestmark = pytest.mark.service
SHARD = "model-00001-of-00002.safetensors"
Asking = Callable[..., ResolveRequest]
Fetch = Callable[..., ResolvedModel]


@pytest.fixture
def fetch(s3: S3, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    monkeypatch.setattr(r2, "_CHUNK", 64 * 1024)

    def run(model: str = "acme/tiny", *, progress: Any = None, **changes: Any) -> ResolvedModel:
        free = changes.pop("free_bytes", lambda _: 1 << 40)
        place = {"r2_bucket": BUCKET, "r2_prefix": "prefix", "r2_endpoint": s3.url}
        request = asking(model, sources=("r2",), **(place | changes))
        source = R2Source(read_timeout=0.5, retry_budget=3.0, first_backoff=0.01)
        return resolve(request, sources=[source], clock=FakeClock(), progress=progress, free_bytes=free)

    return run


def content(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.name[0] != "."}


def test_a_model_is_fetched_checked_and_swapped_in(
    fetch: Fetch, s3: S3, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    progress = MemoryProgress()
    found = fetch(progress=progress)
    assert (found.path, found.source) == (tmp_path / "models" / "tiny", "r2")
    assert content(found.path) == model_files
    size = sum(map(len, model_files.values()))
    assert progress.transfers == [(5, size, 0)]
    assert progress.bytes == size
    assert len(s3.gets(SHARD)) == 5
    assert list((tmp_path / "models" / ".staging").iterdir()) == []


def test_a_quantization_brings_its_parts_and_its_projector(fetch: Fetch, s3: S3) -> None:
    empty = b"GGUF" + (3).to_bytes(4, "little") + bytes(16)
    parts = [f"m-Q4_K_M-0000{number}-of-00002.gguf" for number in (1, 2)]
    for name in (*parts, "m-Q8_0.gguf", "mmproj-F16.gguf"):
        s3.put(f"prefix/quantized/{name}", empty)
    found = fetch("acme/quantized:Q4_K_M")
    assert found.path.name == parts[0]
    assert sorted(content(found.path.parent)) == [*parts, "mmproj-F16.gguf"]
    with pytest.raises(ModelNotFoundError, match="no GGUF file of Q3_K"):
        fetch("acme/quantized:Q3_K")


def test_only_its_own_prefix(fetch: Fetch, s3: S3, model_files: dict[str, bytes]) -> None:
    s3.put("prefix/tiny-other/config.json", b"{}")
    s3.put("prefix/tiny/sub/note.txt", b"x")
    s3.put("prefix/tiny/sub/empty", b"")
    found = fetch()
    assert (found.path / "sub" / "note.txt").read_bytes() == b"x"
    assert (found.path / "sub" / "empty").read_bytes() == b""
    assert {p.name for p in found.path.iterdir()} == {*model_files, "sub", ".garrison-model.json"}


def test_allow_patterns_choose_the_files(fetch: Fetch, s3: S3, model_files: dict[str, bytes]) -> None:
    s3.put("prefix/tiny/original/consolidated.00.pth", b"x")
    found = fetch(allow_patterns=("*.json", "*.safetensors"))
    assert "original" not in content_names(found.path)
    assert s3.gets("consolidated.00.pth") == []
    assert content_names(found.path) == {name for name in model_files if name.endswith((".json", ".safetensors"))}


def content_names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir() if entry.name[0] != "."}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"r2_bucket": None}, "R2_BUCKET is not set", id="R2_BUCKET not set"),
        pytest.param({"r2_prefix": None}, "R2_MODELS_PREFIX is not set", id="R2_MODELS_PREFIX not set"),
        pytest.param({"r2_bucket": "nothing-here"}, "nothing-here", id="no such bucket"),
        pytest.param({"r2_prefix": "elsewhere"}, "holds no files", id="nothing under the prefix"),
    ],
)
def test_skip_conditions(fetch: Fetch, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelNotFoundError, match=reason):
        fetch(**changes)


def test_no_credentials_skips_without_asking_a_metadata_service(s3: S3, asking: Asking, tmp_path: Path) -> None:
    request = asking(r2_bucket=BUCKET, r2_prefix="prefix", r2_endpoint=s3.url)
    with pytest.raises(ModelNotFoundError, match="no AWS credentials"):
        resolve(request, sources=[R2Source(environ={"HOME": str(tmp_path)})])
    assert s3.requests == []


def test_credentials_from_the_shared_file(
    s3: S3, asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = test\naws_secret_access_key = test-secret\n")
    environ = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_PROFILE": "work"}
    request = asking(r2_bucket=BUCKET, r2_prefix="prefix", r2_endpoint=s3.url)
    assert resolve(request, sources=[R2Source(environ=environ)]).source == "r2"


@pytest.mark.parametrize("status", ["401", "403"])
@pytest.mark.parametrize("where", ["list-type", SHARD], ids=["listing", "file"])
def test_credentials_fail(fetch: Fetch, s3: S3, where: str, status: str) -> None:
    s3.faults.append(Fault(where, status, times=99))
    with pytest.raises(FetchError, match="denies access") as caught:
        fetch()
    assert "AWS_ACCESS_KEY_ID" in str(caught.value.hint)
    assert caught.value.exit_code == 12
    assert "test-secret" not in f"{caught.value} {caught.value.details}"


@pytest.mark.parametrize("where", ["list-type", SHARD], ids=["listing", "file"])
def test_500_then_200(fetch: Fetch, s3: S3, where: str) -> None:
    s3.faults.append(Fault(where, "500", times=3))
    assert fetch().source == "r2"


def test_500_for_good(fetch: Fetch, s3: S3, tmp_path: Path) -> None:
    s3.faults.append(Fault("list-type", "500", times=999))
    with pytest.raises(FetchError, match="could not be fetched") as caught:
        fetch()
    assert caught.value.exit_code == 12
    assert list(tmp_path.rglob("r2.log"))


def test_cut_mid_range(fetch: Fetch, s3: S3, model_files: dict[str, bytes]) -> None:
    s3.faults.append(Fault(SHARD, "cut", at=1000, times=2))
    assert content(fetch().path) == model_files


def test_wrong_length(fetch: Fetch, s3: S3, model_files: dict[str, bytes]) -> None:
    s3.faults.append(Fault(SHARD, "short", at=1000, times=2))
    assert content(fetch().path) == model_files


def test_wrong_length_for_good(fetch: Fetch, s3: S3) -> None:
    s3.faults.append(Fault(SHARD, "short", at=1000, times=999))
    with pytest.raises(FetchError):
        fetch()


def test_slow(fetch: Fetch, s3: S3, model_files: dict[str, bytes]) -> None:
    s3.faults.append(Fault(SHARD, "slow", seconds=1.0))
    assert content(fetch().path) == model_files


def test_the_next_run_goes_on_where_this_one_ended(fetch: Fetch, s3: S3, model_files: dict[str, bytes]) -> None:
    second = "model-00002-of-00002.safetensors"
    s3.faults.append(Fault(second, "403", times=99))
    with pytest.raises(FetchError):
        fetch()
    s3.faults.clear()
    s3.requests.clear()
    progress = MemoryProgress()
    assert content(fetch(progress=progress).path) == model_files
    assert s3.gets(SHARD) == []
    (transfer,) = progress.transfers
    assert transfer[2] > 0
    assert progress.bytes == transfer[1] - transfer[2]


def test_a_partial_file_continues_from_its_length(
    fetch: Fetch, s3: S3, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    class Stopping(MemoryProgress):
        def advanced(self, count: int) -> None:
            super().advanced(count)
            if self.bytes > 150_000:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(progress=Stopping())
    (part,) = tmp_path.rglob("*.part")
    have = part.stat().st_size
    assert 0 < have < 300_000
    assert not (tmp_path / "models" / "tiny").exists()
    s3.requests.clear()
    assert content(fetch().path) == model_files
    first = min(int(str(asked).removeprefix("bytes=").partition("-")[0]) for asked in s3.gets(SHARD))
    assert first == have


def test_an_object_that_changed_is_fetched_from_the_start(
    fetch: Fetch, s3: S3, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    class Stopping(MemoryProgress):
        def advanced(self, count: int) -> None:
            super().advanced(count)
            if self.bytes > 150_000:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(progress=Stopping())
    changed = model_files[SHARD][:-1] + b"!"
    s3.put(f"prefix/tiny/{SHARD}", changed)
    assert content(fetch().path) == model_files | {SHARD: changed}


def test_an_object_that_changes_on_the_way_is_noticed(fetch: Fetch, s3: S3, model_files: dict[str, bytes]) -> None:
    class Changing(MemoryProgress):
        def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
            super().started(files, total, done)
            s3.put(f"prefix/tiny/{SHARD}", model_files[SHARD][:-1] + b"!")

    with pytest.raises(FetchError, match="changed while it was downloaded"):
        fetch(progress=Changing())


def test_disk_full_is_said_before_the_download(fetch: Fetch, s3: S3) -> None:
    with pytest.raises(DiskFullError) as caught:
        fetch(free_bytes=lambda _: 1000)
    assert caught.value.details["free_bytes"] == 1000
    assert s3.gets(SHARD) == []


def test_an_incomplete_model_is_invalid(fetch: Fetch, s3: S3, tmp_path: Path) -> None:
    s3.put("prefix/half/config.json", b"{}")
    with pytest.raises(ModelInvalidError) as caught:
        fetch("acme/half")
    assert caught.value.exit_code == 11
    assert not (tmp_path / "models" / "half").exists()
    assert f"kept at {tmp_path}/models/.staging/" in str(caught.value.hint)


@pytest.mark.parametrize("bucket", ["a b", "a/b", "", "a\nb", "-a"])
def test_a_bucket_that_cannot_be_one(fetch: Fetch, bucket: str) -> None:
    with pytest.raises(InvalidError, match="R2_BUCKET"):
        fetch(r2_bucket=bucket)


@pytest.mark.parametrize("endpoint", ["http://10.0.0.1:9000", "ftp://x", "nonsense", "http://[::1", "https://x:99999"])
def test_an_endpoint_that_cannot_be_used(fetch: Fetch, endpoint: str) -> None:
    with pytest.raises(InvalidError, match="R2_ENDPOINT_URL"):
        fetch(r2_endpoint=endpoint)
