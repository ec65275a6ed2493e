"""Resolve without a network: the tables of the seed, row by row."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import (
    DiskFullError,
    FetchError,
    InvalidError,
    LockedError,
    ModelInvalidError,
    ModelNotFoundError,
)
from garrison.base.locks import file_lock
from garrison.base.settings import Settings
from garrison.models.files.problem import Problem
from garrison.models.hub_caches import user_hub_caches
from garrison.models.layout import Layout
from garrison.models.names import parse_model
from garrison.models.record import ModelRecord, read_record, write_record
from garrison.models.request import ResolveRequest
from garrison.models.resolve import Attempt, ResolvedModel, default_sources, resolve
from garrison.models.sources.source import Broken, Found, Skipped
from garrison.testing.clock import FakeClock
from garrison.testing.progress import MemoryProgress
from garrison.testing.sources import MemorySource

NETLESS = ("flox", "local", "hf-cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def asking(root: Path) -> Callable[..., ResolveRequest]:
    def ask(model: str = "acme/tiny", **changes: Any) -> ResolveRequest:
        layout = Layout(root=root, data_dir=root.parent / "data")
        return ResolveRequest(model=parse_model(model), layout=layout, **({"sources": NETLESS} | changes))

    return ask


Asking = Callable[..., ResolveRequest]


def reasons(error: ModelNotFoundError) -> dict[str, str]:
    return {attempt["source"]: attempt["reason"] for attempt in error.details["tried"]}


class TestSourceTable:
    def test_flox(self, asking: Asking, make: Any, tmp_path: Path) -> None:
        snapshot = make.hub_snapshot(tmp_path / "env" / "share" / "models" / "hub")
        found = resolve(asking(flox_env=tmp_path / "env"))
        assert (found.source, found.path, found.revision) == ("flox", snapshot, "a" * 40)
        assert found.hf_home == tmp_path / "env" / "share" / "models"

    def test_flox_skipped_when_FLOX_ENV_is_not_set(self, asking: Asking) -> None:  # noqa: N802 - the variable's name
        with pytest.raises(ModelNotFoundError) as caught:
            resolve(asking(sources=("flox",)))
        assert reasons(caught.value) == {"flox": "FLOX_ENV is not set"}

    def test_local(self, asking: Asking, make: Any, root: Path) -> None:
        path = make.model(root / "tiny", shards=3)
        found = resolve(asking())
        assert (found.source, found.path, found.hf_home) == ("local", path, None)

    def test_local_skipped_when_the_directory_is_missing(self, asking: Asking, root: Path) -> None:
        with pytest.raises(ModelNotFoundError) as caught:
            resolve(asking(sources=("local",)))
        assert f"{root / 'tiny'} does not exist" in reasons(caught.value)["local"]
        assert caught.value.exit_code == 10

    def test_local_skipped_when_it_fails_validation(self, asking: Asking, make: Any, root: Path) -> None:
        (make.model(root / "tiny") / "config.json").unlink()
        cached = make.hub_snapshot(root / "hub")
        found = resolve(asking())
        assert (found.source, found.path) == ("hf-cache", cached)
        assert [(attempt.source, attempt.outcome) for attempt in found.tried] == [
            ("flox", "skipped"),
            ("local", "invalid"),
            ("hf-cache", "found"),
        ]

    def test_hf_cache(self, asking: Asking, make: Any, root: Path) -> None:
        snapshot = make.hub_snapshot(root / "hub")
        found = resolve(asking())
        assert (found.source, found.path, found.hf_home, found.revision) == ("hf-cache", snapshot, root, "a" * 40)

    def test_hf_cache_skipped_when_no_usable_snapshot(self, asking: Asking, root: Path) -> None:
        (root / "hub" / "models--acme--tiny" / "snapshots").mkdir(parents=True)
        with pytest.raises(ModelNotFoundError) as caught:
            resolve(asking(sources=("hf-cache",)))
        assert "no snapshot" in reasons(caught.value)["hf-cache"]

    def test_the_first_valid_source_wins(self, asking: Asking, make: Any, root: Path, tmp_path: Path) -> None:
        make.hub_snapshot(tmp_path / "env" / "share" / "models" / "hub")
        make.model(root / "tiny")
        make.hub_snapshot(root / "hub")
        for order in (("hf-cache", "local", "flox"), ("local", "flox"), ("flox", "local")):
            assert resolve(asking(sources=order, flox_env=tmp_path / "env")).source == order[0]

    def test_the_documented_order(self) -> None:
        assert Settings().model_sources == ("flox", "local", "hf-cache", "r2", "hf-hub")
        assert [source.name for source in default_sources(Settings().model_sources)] == list(Settings().model_sources)


class TestLocal:
    def test_a_hand_copied_directory_needs_no_record(self, asking: Asking, make: Any, root: Path) -> None:
        assert read_record(make.model(root / "tiny")) is None
        assert resolve(asking()).source == "local"

    def test_a_bare_name(self, asking: Asking, make: Any, root: Path) -> None:
        make.model(root / "tiny")
        assert resolve(asking("tiny")).model_id == "tiny"

    def test_org_and_name_as_directories(self, asking: Asking, make: Any, root: Path) -> None:
        path = make.model(root / "acme" / "tiny")
        assert resolve(asking()).path == path

    def test_another_organisation_s_model_is_not_taken(self, asking: Asking, make: Any, root: Path) -> None:
        write_record(make.model(root / "tiny"), ModelRecord("other/tiny", "hf-hub", "now"))
        with pytest.raises(ModelNotFoundError, match="holds other/tiny"):
            resolve(asking())
        assert resolve(asking("other/tiny")).source == "local"
        assert resolve(asking("tiny")).source == "local"

    @pytest.mark.parametrize(
        ("asked", "fits"),
        [("main", True), ("c0ffee0", True), ("c0ffee0" + "0" * 33, True), ("v2", False), ("c0f", False)],
    )
    def test_the_revision_of_a_record(self, asking: Asking, make: Any, root: Path, asked: str, fits: bool) -> None:
        write_record(make.model(root / "tiny"), ModelRecord("acme/tiny", "hf-hub", "now", revision="c0ffee" + "0" * 34))
        if fits:
            assert resolve(asking(f"acme/tiny@{asked}")).source == "local"
        else:
            with pytest.raises(ModelNotFoundError):
                resolve(asking(f"acme/tiny@{asked}"))

    def test_a_link_is_pinned_to_what_it_points_at(self, asking: Asking, make: Any, root: Path, tmp_path: Path) -> None:
        real = make.model(tmp_path / "elsewhere" / "v1")
        root.mkdir()
        (root / "tiny").symlink_to(real)
        assert resolve(asking()).path == real

    def test_a_path(self, asking: Asking, make: Any, tmp_path: Path, root: Path) -> None:
        path = make.model(tmp_path / "mine")
        found = resolve(asking(str(path), sources=("hf-hub",)))
        assert (found.path, found.source, found.name, found.model_id) == (path, "local", "mine", str(path))
        assert not root.exists()

    def test_a_path_that_is_not_there(self, asking: Asking, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFoundError, match=r"nothing-here does not exist"):
            resolve(asking(str(tmp_path / "nothing-here")))

    def test_a_gguf_file(self, asking: Asking, make: Any, tmp_path: Path) -> None:
        path = make.gguf(tmp_path / "m.gguf")
        assert resolve(asking(str(path))).path == path

    def test_a_named_gguf_in_a_copied_repository(self, asking: Asking, make: Any, root: Path) -> None:
        path = make.gguf(root / "tiny" / "q4.gguf")
        make.gguf(root / "tiny" / "q8.gguf")
        assert resolve(asking("acme/tiny/q4.gguf")).path == path

    def test_a_read_only_root_needs_no_lock(
        self, asking: Asking, make: Any, public_path: Path, unprivileged: Any
    ) -> None:
        make.model(public_path / "tiny")
        request = asking()
        request = replace(request, layout=replace(request.layout, root=public_path), sources=("local", "hf-hub"))
        with unprivileged():
            assert resolve(request).source == "local"
        assert not (public_path / ".locks").exists()


class TestSnapshots:
    @pytest.fixture
    def two(self, make: Any, root: Path) -> tuple[Path, Path]:
        """Two snapshots; `refs/main` names the first, the second is newer."""
        first = make.hub_snapshot(root / "hub")
        second = make.model(first.parent / ("b" * 40))
        os.utime(first, (1, 1))
        return first, second

    def test_refs_main_is_pinned_not_the_newest(self, asking: Asking, two: tuple[Path, Path]) -> None:
        assert resolve(asking()).path == two[0]

    def test_the_newest_without_a_reference(self, asking: Asking, two: tuple[Path, Path], root: Path) -> None:
        (root / "hub" / "models--acme--tiny" / "refs" / "main").unlink()
        assert resolve(asking()).path == two[1]

    def test_the_newest_that_is_whole(self, asking: Asking, two: tuple[Path, Path], root: Path) -> None:
        (root / "hub" / "models--acme--tiny" / "refs" / "main").unlink()
        (two[1] / "model.safetensors").unlink()
        assert resolve(asking()).path == two[0]

    @pytest.mark.parametrize("asked", ["b" * 40, "b" * 8, "next"], ids=["commit", "short commit", "reference"])
    def test_a_revision(self, asking: Asking, two: tuple[Path, Path], root: Path, asked: str) -> None:
        (root / "hub" / "models--acme--tiny" / "refs" / "next").write_text("b" * 40)
        found = resolve(asking(f"acme/tiny@{asked}"))
        assert (found.path, found.revision, found.asked_revision) == (two[1], "b" * 40, asked)

    def test_a_revision_that_is_not_cached(self, asking: Asking, two: tuple[Path, Path]) -> None:
        with pytest.raises(ModelNotFoundError, match="no revision v9"):
            resolve(asking("acme/tiny@v9"))

    def test_a_pruned_blob(self, asking: Asking, two: tuple[Path, Path]) -> None:
        for snapshot in two:
            target = snapshot / "model.safetensors"
            target.resolve().unlink()
        with pytest.raises(ModelInvalidError) as caught:
            resolve(asking())
        assert caught.value.exit_code == 11

    @pytest.mark.parametrize(
        ("variables", "home"),
        [
            ({"HF_HOME": "{}/home"}, "home"),
            ({"XDG_CACHE_HOME": "{}"}, "huggingface"),
            ({"HF_HUB_CACHE": "{}/moved/hub"}, "moved"),
            ({"HF_HUB_CACHE": "{}/mycache"}, None),
            ({"HUGGINGFACE_HUB_CACHE": "{}/mycache"}, None),
            ({"TRANSFORMERS_CACHE": "{}/mycache"}, None),
            ({"PYTORCH_TRANSFORMERS_CACHE": "{}/mycache", "HF_HOME": "{}/home"}, None),
        ],
        ids=lambda value: ",".join(value) if isinstance(value, dict) else str(value),
    )
    def test_the_user_s_own_cache(
        self, asking: Asking, make: Any, tmp_path: Path, variables: dict[str, str], home: str | None
    ) -> None:
        snapshot = make.hub_snapshot(tmp_path / (f"{home}/hub" if home else "mycache"))
        environ = {name: value.format(tmp_path) for name, value in variables.items()}
        found = resolve(asking(hub_caches=user_hub_caches(environ)))
        assert (found.path, found.hf_home) == (snapshot, tmp_path / home if home else None)


class TestQuantization:
    @pytest.fixture
    def files(self, make: Any) -> Callable[[Path], Path]:
        def made(directory: Path) -> Path:
            for name in (
                "m-Q8_0.gguf",
                "m-Q4_K_M-00001-of-00002.gguf",
                "m-Q4_K_M-00002-of-00002.gguf",
                "mmproj-F16.gguf",
            ):
                make.gguf(directory / name)
            return directory

        return made

    @pytest.mark.parametrize(
        ("asked", "file"),
        [
            (":Q8_0", "m-Q8_0.gguf"),
            (":q4_k_m", "m-Q4_K_M-00001-of-00002.gguf"),
            (":latest", "m-Q4_K_M-00001-of-00002.gguf"),
        ],
    )
    def test_of_a_copy_of_the_repository(
        self, asking: Asking, files: Callable[[Path], Path], root: Path, asked: str, file: str
    ) -> None:
        files(root / "tiny")
        found = resolve(asking(f"acme/tiny{asked}"))
        assert (found.source, found.path) == ("local", root / "tiny" / file)

    def test_of_a_snapshot(self, asking: Asking, files: Callable[[Path], Path], root: Path) -> None:
        snapshot = files(root / "hub" / "models--acme--tiny" / "snapshots" / ("c" * 40))
        assert resolve(asking("acme/tiny:Q8_0")).path == snapshot / "m-Q8_0.gguf"
        with pytest.raises(ModelNotFoundError) as caught:
            resolve(asking("acme/tiny:Q3_K_M"))
        assert "has no GGUF file of that quantization" in reasons(caught.value)["hf-cache"]

    def test_a_split_one_with_a_part_missing(self, asking: Asking, files: Callable[[Path], Path], root: Path) -> None:
        (files(root / "tiny") / "m-Q4_K_M-00002-of-00002.gguf").unlink()
        with pytest.raises(ModelInvalidError, match=r"m-Q4_K_M-00002-of-00002.gguf is missing"):
            resolve(asking("acme/tiny:Q4_K_M"))


def _damage(*names: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        for name in names:
            (path / name).unlink()

    return damage


def _truncate(path: Path) -> None:
    shard = path / "model-00002-of-00003.safetensors"
    os.truncate(shard, shard.stat().st_size - 1)


def _empty(path: Path) -> None:
    os.truncate(path / "model-00002-of-00003.safetensors", 0)


def _header(path: Path) -> None:
    (path / "model-00002-of-00003.safetensors").write_bytes(b"\xff" * 64)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        pytest.param(_damage("config.json"), "config.json", id="config.json"),
        pytest.param(_damage("tokenizer.json"), "tokenizer", id="tokenizer assets"),
        pytest.param(
            _damage("model-00002-of-00003.safetensors"), "model-00002-of-00003", id="index names a missing shard"
        ),
        pytest.param(
            _damage("model.safetensors.index.json", "model-00003-of-00003.safetensors"),
            "model-00003-of-00003",
            id="no index, one of N shards missing",
        ),
        pytest.param(
            _damage("model.safetensors.index.json", *(f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3))),
            "weight",
            id="no weight-like file",
        ),
        pytest.param(_truncate, "model-00002-of-00003", id="truncated shard"),
        pytest.param(_empty, "model-00002-of-00003", id="empty file"),
        pytest.param(_header, "model-00002-of-00003", id="corrupt header"),
    ],
)
def test_validation_rows(asking: Asking, make: Any, root: Path, damage: Callable[[Path], None], named: str) -> None:
    damage(make.model(root / "tiny", shards=3))
    with pytest.raises(ModelInvalidError, match=named) as caught:
        resolve(asking())
    assert caught.value.exit_code == 11
    assert [attempt["source"] for attempt in caught.value.details["tried"]] == list(NETLESS)


def test_the_tokenizer_check_can_be_skipped(asking: Asking, make: Any, root: Path) -> None:
    _damage("tokenizer.json")(make.model(root / "tiny"))
    assert resolve(asking(skip_tokenizer=True)).source == "local"


def test_verify_sees_changed_bytes(asking: Asking, make: Any, root: Path) -> None:
    path = make.model(root / "tiny")
    assert resolve(asking(verify=True)).source == "local"
    weights = path / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert resolve(asking()).source == "local"
    with pytest.raises(ModelInvalidError, match=r"model\.safetensors"):
        resolve(asking(verify=True))


class TestVerdict:
    """What is raised when no source has a whole one."""

    SKIPPED = Skipped("not here")
    BROKEN = Broken(Problem("w.safetensors", "is truncated"))
    FAILED = FetchError("no network", hint="wait")

    @pytest.mark.parametrize(
        ("answers", "error", "code"),
        [
            pytest.param([SKIPPED, SKIPPED], ModelNotFoundError, 10, id="no source has it"),
            pytest.param([SKIPPED, BROKEN], ModelInvalidError, 11, id="found but invalid"),
            pytest.param([BROKEN, SKIPPED], ModelInvalidError, 11, id="found but invalid, others without it"),
            pytest.param([BROKEN, FAILED], ModelInvalidError, 11, id="invalid and a failed fetch"),
            pytest.param([SKIPPED, FAILED], FetchError, 12, id="a failed fetch and nothing else"),
            pytest.param([], ModelNotFoundError, 10, id="no source named"),
        ],
    )
    def test_exit_code(self, asking: Asking, answers: list[Any], error: type, code: int) -> None:
        sources = [MemorySource(f"s{number}", answer) for number, answer in enumerate(answers)]
        with pytest.raises(error) as caught:
            resolve(asking(), sources=sources)
        assert caught.value.exit_code == code
        assert [attempt["source"] for attempt in caught.value.details["tried"]] == [source.name for source in sources]

    def test_what_was_searched_is_listed_and_fits_a_terminal(self, asking: Asking, root: Path) -> None:
        place = f"{root}/tiny"
        sources = [
            MemorySource("flox", Skipped("FLOX_ENV is not set", unused=True)),
            MemorySource("local", Skipped(f"{place} does not exist; {root}/acme/tiny does not exist")),
            MemorySource("hf-hub", Skipped(" ".join(["https://hub.example/acme/tiny says:", *["no"] * 30]))),
            MemorySource("r2", Skipped("R2_BUCKET is not set", unused=True)),
        ]
        with pytest.raises(ModelNotFoundError) as caught:
            resolve(asking(), sources=sources)
        assert caught.value.message.splitlines() == [
            "model acme/tiny not found",
            "  local   <models>/tiny does not exist",
            "          <models>/acme/tiny does not exist",
            "  hf-hub  https://hub.example/acme/tiny says: " + " ".join(["no"] * 11),
            "          " + " ".join(["no"] * 19),
            "  not searched: flox (FLOX_ENV is not set), r2 (R2_BUCKET is not set)",
            f"  <models> is {root}",
        ]
        assert "garrison models import DIR --as acme/tiny" in str(caught.value.hint)

    def test_a_failed_source_does_not_hide_a_good_one(self, asking: Asking, tmp_path: Path) -> None:
        sources = [MemorySource("a", self.FAILED), MemorySource("b", self.BROKEN), MemorySource("c", Found(tmp_path))]
        progress = MemoryProgress()
        found = resolve(asking(), sources=sources, progress=progress)
        assert found.tried == (
            Attempt("a", "failed", "no network"),
            Attempt("b", "invalid", "w.safetensors is truncated"),
            Attempt("c", "found"),
        )
        assert [facts["outcome"] for name, facts in progress.steps if name == "tried"] == ["failed", "invalid"]

    def test_a_full_disk_ends_the_search(self, asking: Asking) -> None:
        last = MemorySource("b", Skipped("x"))
        with pytest.raises(DiskFullError):
            resolve(asking(), sources=[MemorySource("a", DiskFullError("full")), last])
        assert last.asked == []


class TestLock:
    def test_taken_before_any_source_is_asked(self, asking: Asking, root: Path) -> None:
        request = asking(lock_timeout=5.0)
        source, progress = MemorySource("a", Skipped("x")), MemoryProgress()
        with (
            file_lock(request.layout.lock_path("acme/tiny"), timeout=0, purpose="tests"),
            pytest.raises(LockedError) as caught,
        ):
            resolve(request, sources=[source], clock=FakeClock(), progress=progress)
        assert caught.value.exit_code == 13
        assert caught.value.details["pid"] == os.getpid()
        assert source.asked == []
        assert [name for name, _ in progress.steps] == ["wait"]

    def test_another_model_is_not_kept_waiting(self, asking: Asking) -> None:
        request = asking("acme/other", lock_timeout=0)
        with (
            file_lock(request.layout.lock_path("acme/tiny"), timeout=0, purpose="tests"),
            pytest.raises(ModelNotFoundError),
        ):
            resolve(request)

    def test_let_go_afterwards(self, asking: Asking) -> None:
        for _ in range(2):
            with pytest.raises(ModelNotFoundError):
                resolve(asking(lock_timeout=0))


class TestInstall:
    """A download that is handed over takes its place."""

    @pytest.fixture
    def staged(self, asking: Asking, make: Any) -> Callable[[str], MemorySource]:
        def stage(model: str = "acme/tiny") -> MemorySource:
            request = asking(model)
            directory = request.layout.staging_dir(request.model, "hf-hub")
            return MemorySource("s", Found(make.model(directory), revision="c" * 40, staged=True))

        return stage

    def test_into_the_name(self, asking: Asking, staged: Any, root: Path) -> None:
        found = resolve(asking(), sources=[staged()], clock=FakeClock())
        assert (found.path, found.revision) == (root / "tiny", "c" * 40)
        assert read_record(root / "tiny") == ModelRecord("acme/tiny", "s", "2026-01-01T00:00:00+00:00", "c" * 40)
        assert resolve(asking()).source == "local"

    def test_not_before_its_files_are_on_the_disk(
        self, asking: Asking, staged: Any, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("garrison.base.files.os.fsync", full)
        source = staged()
        with pytest.raises(DiskFullError):
            resolve(asking(), sources=[source])
        assert not (root / "tiny").exists()
        assert read_record(source.answer.path) is None

    def test_not_over_another_organisation_s(self, asking: Asking, staged: Any, make: Any, root: Path) -> None:
        write_record(make.model(root / "tiny"), ModelRecord("other/tiny", "hf-hub", "now"))
        assert resolve(asking(), sources=[staged()]).path == root / "acme" / "tiny"
        assert resolve(asking("other/tiny")).path == root / "tiny"
        assert resolve(asking()).path == root / "acme" / "tiny"

    def test_a_hand_copied_one_is_set_aside_not_deleted(self, asking: Asking, staged: Any, root: Path) -> None:
        (root / "tiny").mkdir(parents=True)
        (root / "tiny" / "mine.txt").write_text("mine")
        found = resolve(asking(), sources=[staged()])
        assert found.kept is not None
        assert (found.kept / "mine.txt").read_text() == "mine"

    def test_a_broken_download_does_not(self, asking: Asking, staged: Any, root: Path) -> None:
        source = staged()
        assert isinstance(source.answer, Found)
        (source.answer.path / "config.json").unlink()
        with pytest.raises(ModelInvalidError):
            resolve(asking(), sources=[source])
        assert not (root / "tiny").exists()

    def test_a_refused_download_is_kept_and_named(self, asking: Asking, staged: Any) -> None:
        source = staged()
        assert isinstance(source.answer, Found)
        (source.answer.path / "tokenizer.json").unlink()
        with pytest.raises(ModelInvalidError) as caught:
            resolve(asking(), sources=[source])
        assert f"kept at {source.answer.path}" in str(caught.value.hint)
        assert (source.answer.path / "model.safetensors").exists()
        assert resolve(asking(skip_tokenizer=True), sources=[source]).path.name == "tiny"

    def test_what_is_odd_and_harmless_is_a_note(self, asking: Asking, make: Any, root: Path) -> None:
        make.model(root / "tiny")
        (root / "tiny" / "pytorch_model.bin").write_bytes(b"x")
        progress = MemoryProgress()
        resolve(asking(), progress=progress)
        assert [facts["message"] for name, facts in progress.steps if name == "remark"] == [
            f"note: {root / 'tiny'}: pytorch_model.bin is not loaded: the safetensors files are"
        ]


class TestOffline:
    def test_network_sources_are_skipped(self, asking: Asking) -> None:
        request = asking(offline=True, sources=("r2", "hf-hub"), r2_bucket="b", r2_prefix="p")
        with pytest.raises(ModelNotFoundError) as caught:
            resolve(request)
        assert set(reasons(caught.value).values()) == {"offline"}

    @pytest.mark.parametrize("sources", [("local",), ("local", "hf-cache")], ids=",".join)
    def test_no_socket_is_made(
        self, asking: Asking, make: Any, root: Path, sources: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make.hub_snapshot(root / "hub", "acme/cached")
        make.model(root / "tiny")

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("a socket")

        monkeypatch.setattr(socket, "socket", refuse)
        assert resolve(asking(sources=sources)).source == "local"
        if "hf-cache" in sources:
            assert resolve(asking("acme/cached", sources=sources)).source == "hf-cache"

    def test_a_timeout_that_is_no_number(self, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "soon")
        with pytest.raises(InvalidError, match="HF_HUB_DOWNLOAD_TIMEOUT"):
            resolve(asking(sources=("hf-hub",)))

    def test_hf_hub_offline_is_heeded(self, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE is set"):
            resolve(asking(sources=("hf-hub",)))


def test_a_local_model_imports_nothing_heavy(make: Any, root: Path) -> None:
    make.model(root / "tiny")
    script = """
import sys
from pathlib import Path
from garrison.models.layout import Layout
from garrison.models.names import parse_model
from garrison.models.request import ResolveRequest
from garrison.models.resolve import resolve
root = Path(sys.argv[1])
resolve(ResolveRequest(model=parse_model("acme/tiny"), layout=Layout(root=root, data_dir=root)))
heavy = {"huggingface_hub", "obstore", "httpx2", "rich", "pydantic", "yaml", "asyncio", "logging", "psutil"}
print(",".join(sorted(heavy & set(sys.modules))))
"""
    done = subprocess.run([sys.executable, "-c", script, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


class TestRequest:
    def test_from_settings(self, tmp_path: Path) -> None:
        settings = Settings.load(
            {
                "GARRISON_CONFIG": "",
                "XDG_CONFIG_HOME": str(tmp_path),
                "VLLM_MODEL": "tiny",
                "VLLM_MODEL_ORG": "acme",
                "VLLM_MODEL_REVISION": "v1",
                "VLLM_MODELS_DIR": str(tmp_path / "m"),
                "VLLM_MODEL_SOURCES": "local, r2",
                "FLOX_ENV": "/flox",
                "R2_BUCKET": "b",
                "R2_MODELS_PREFIX": "p",
                "R2_ENDPOINT_URL": "https://r2",
                "VLLM_RESOLVE_LOCK_TIMEOUT": "7",
                "VLLM_SKIP_TOKENIZER_CHECK": "1",
                "VLLM_KEEP_LOGS": "1",
                "HF_TOKEN": "hf_secret",
                "HF_ENDPOINT": "https://mirror",
            }
        )
        request = ResolveRequest.from_settings(settings, offline=True, verify=True)
        assert str(request.model) == "acme/tiny@v1"
        assert request.layout.root == tmp_path / "m"
        assert request.sources == ("local", "r2")
        assert (request.flox_env, request.hf_endpoint, request.hf_token) == (
            Path("/flox"),
            "https://mirror",
            "hf_secret",
        )
        assert (request.r2_bucket, request.r2_prefix, request.r2_endpoint) == ("b", "p", "https://r2")
        assert (request.lock_timeout, request.skip_tokenizer, request.keep_logs) == (7.0, True, True)
        assert (request.offline, request.verify) == (True, True)
        assert "hf_secret" not in repr(request)

    def test_no_model_named(self) -> None:
        with pytest.raises(InvalidError, match="VLLM_MODEL is not set"):
            ResolveRequest.from_settings(Settings())

    def test_json(self) -> None:
        resolved = ResolvedModel(
            "tiny", "acme/tiny", "c", None, Path("/m/tiny"), "local", None, (Attempt("local", "found"),)
        )
        assert resolved.to_json() == {
            "model": "tiny",
            "model_id": "acme/tiny",
            "revision": "c",
            "path": "/m/tiny",
            "source": "local",
            "hf_home": None,
            "tried": [{"source": "local", "outcome": "found", "reason": ""}],
        }
