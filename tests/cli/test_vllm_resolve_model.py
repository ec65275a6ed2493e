"""`vllm-resolve-model`: its variables, its env file, its exit codes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import InvalidError
from garrison.base.locks import file_lock
from garrison.base.settings import Settings
from garrison.cli.scripts.vllm_resolve_model import main, run
from garrison.models.envfile import env_file_path, identity, read_env_file
from garrison.models.layout import Layout
from garrison.models.names import model_from_directory
from garrison.testing.progress import MemoryProgress

HASH = "e7f063adcf7c"  # sha256 of acme/tiny
Environ = dict[str, str]


def model(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    header = b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"abcd")
    return path


@pytest.fixture
def environ(tmp_path: Path) -> Environ:
    (tmp_path / "cache").mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "VLLM_MODEL": "tiny",
        "VLLM_MODEL_ORG": "acme",
        "VLLM_MODELS_DIR": str(tmp_path / "models"),
        "VLLM_MODEL_SOURCES": "flox,local,hf-cache",
        "FLOX_ENV_CACHE": str(tmp_path / "cache"),
    }


@pytest.fixture
def call(environ: Environ, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def call(*arguments: str, without: str | None = None, **more: str) -> int:
        for name in list(os.environ):
            if name.startswith(("VLLM_", "FLOX_", "HF_", "R2_", "GARRISON_")):
                monkeypatch.delenv(name)
        for name, value in (environ | more).items():
            monkeypatch.setenv(name, value)
        if without:
            monkeypatch.delenv(without)
        return main(list(arguments))

    return call


Call = Callable[..., int]


class TestRequired:
    @pytest.mark.parametrize("name", ["VLLM_MODEL", "VLLM_MODELS_DIR", "VLLM_MODEL_ORG", "FLOX_ENV_CACHE"])
    def test_missing(self, call: Call, capsys: pytest.CaptureFixture[str], name: str) -> None:
        assert call(without=name) == 1
        assert name in capsys.readouterr().err

    @pytest.mark.parametrize(
        "value", ["a/b", "a\\b", ".", "..", "a\tb"], ids=["slash", "backslash", "dot", "dots", "control"]
    )
    def test_VLLM_MODEL_single_safe_path_element(  # noqa: N802 - the variable's name
        self, call: Call, capsys: pytest.CaptureFixture[str], value: str
    ) -> None:
        assert call(VLLM_MODEL=value) == 1
        assert "VLLM_MODEL must be a single safe path element" in capsys.readouterr().err

    def test_nothing_is_written_below_the_root_before(self, call: Call, tmp_path: Path) -> None:
        call(without="VLLM_MODEL_ORG")
        assert not (tmp_path / "models").exists()


class TestOptional:
    def test_VLLM_MODEL_ID(self, call: Call, tmp_path: Path) -> None:  # noqa: N802
        model(tmp_path / "models" / "tiny")
        assert call(VLLM_MODEL_ID="meta-llama/Llama-3.1-8B") == 0
        (file,) = (tmp_path / "cache").iterdir()
        assert file.name.startswith("vllm-model.meta-llama-Llama-3.1-8B.")
        assert read_env_file(file)["VLLM_MODEL_ID"] == "meta-llama/Llama-3.1-8B"

    def test_VLLM_MODEL_ENV_FILE(self, call: Call, tmp_path: Path) -> None:  # noqa: N802
        model(tmp_path / "models" / "tiny")
        assert call(VLLM_MODEL_ENV_FILE=str(tmp_path / "x" / "my.env"), without="FLOX_ENV_CACHE") == 0
        assert read_env_file(tmp_path / "x" / "my.env")["VLLM_MODEL"] == "tiny"

    @pytest.mark.parametrize("value", ["", "nowhere", "local,nowhere"])
    def test_VLLM_MODEL_SOURCES(self, call: Call, tmp_path: Path, value: str) -> None:  # noqa: N802
        if not value:
            assert call("--help", VLLM_MODEL_SOURCES=value) == 0
            return
        assert call(VLLM_MODEL_SOURCES=value) == 1

    @pytest.mark.parametrize(
        ("name", "value"),
        [("VLLM_RESOLVE_LOCK_TIMEOUT", "soon"), ("VLLM_SKIP_TOKENIZER_CHECK", "2"), ("VLLM_KEEP_LOGS", "maybe")],
    )
    def test_bad_values(self, call: Call, capsys: pytest.CaptureFixture[str], name: str, value: str) -> None:
        assert call(**{name: value}) == 1
        assert name in capsys.readouterr().err

    def test_VLLM_SKIP_TOKENIZER_CHECK(self, call: Call, tmp_path: Path) -> None:  # noqa: N802
        (model(tmp_path / "models" / "tiny") / "tokenizer.json").unlink()
        assert call() == 11
        assert call(VLLM_SKIP_TOKENIZER_CHECK="1") == 0

    def test_VLLM_RESOLVE_LOCK_TIMEOUT(self, call: Call, tmp_path: Path) -> None:  # noqa: N802
        layout = Layout(root=tmp_path / "models", data_dir=tmp_path)
        with file_lock(layout.lock_path("acme/tiny"), timeout=0, purpose="tests"):
            assert call(VLLM_RESOLVE_LOCK_TIMEOUT="0") == 13


class TestExitCodes:
    def test_not_found(self, call: Call, capsys: pytest.CaptureFixture[str]) -> None:
        assert call("--json") == 10
        answer = json.loads(capsys.readouterr().out)
        assert (answer["ok"], answer["code"]) == (False, "model-not-found")
        assert [attempt["source"] for attempt in answer["tried"]] == ["flox", "local", "hf-cache"]

    def test_invalid(self, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (model(tmp_path / "models" / "tiny") / "config.json").unlink()
        assert call() == 11
        assert "config.json" in capsys.readouterr().err

    def test_gguf_without_config_is_not_for_vllm(self, call: Call, tmp_path: Path) -> None:
        (tmp_path / "models" / "tiny").mkdir(parents=True)
        (tmp_path / "models" / "tiny" / "m.gguf").write_bytes(b"GGUF")
        assert call() == 11

    def test_a_store_without_credentials_is_skipped(self, call: Call, capsys: pytest.CaptureFixture[str]) -> None:
        assert call(VLLM_MODEL_SOURCES="r2", R2_BUCKET="b", R2_MODELS_PREFIX="p", R2_ENDPOINT_URL="https://x") == 10
        assert "no AWS credentials" in capsys.readouterr().err

    def test_usage(self, call: Call) -> None:
        assert call("--nonsense") == 64

    def test_no_env_file_after_a_failure(self, call: Call, tmp_path: Path) -> None:
        call()
        assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(call: Call, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert call(flag, without="VLLM_MODEL") == 0
    out = capsys.readouterr().out
    rows = [row for row in Settings.table() if row.group == "model"]
    for row in rows:
        assert not row.seeds or any(seed in out for seed in row.seeds), row.name


class TestEnvFile:
    def test_resolved_locally(self, call: Call, tmp_path: Path) -> None:
        path = model(tmp_path / "models" / "tiny")
        assert call() == 0
        file = tmp_path / "cache" / f"vllm-model.acme-tiny.{HASH}.env"
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.read_text() == (
            "# generated by vllm-resolve-model\n"
            "export VLLM_MODEL='tiny'\n"
            "export VLLM_MODEL_ID='acme/tiny'\n"
            f"export VLLM_MODEL_PATH='{path}'\n"
            "export _VLLM_MODEL_IDENTITY='acme/tiny'\n"
            f"export _VLLM_RESOLVED_MODEL='{path}'\n"
            "export _VLLM_RESOLVED_VIA='local'\n"
        )

    @pytest.mark.parametrize("source", ["hf-cache", "flox"])
    def test_resolved_in_a_hub_cache(self, call: Call, tmp_path: Path, source: str) -> None:
        home = tmp_path / "models" if source == "hf-cache" else tmp_path / "env" / "share" / "models"
        snapshot = model(home / "hub" / "models--acme--tiny" / "snapshots" / "abc123")
        assert call(FLOX_ENV=str(tmp_path / "env")) == 0
        values = read_env_file(tmp_path / "cache" / f"vllm-model.acme-tiny.{HASH}.env")
        expected = {
            "HF_HOME": str(home),
            "VLLM_MODEL": "tiny",
            "VLLM_MODEL_ID": "acme/tiny",
            "_VLLM_MODEL_IDENTITY": "acme/tiny",
            "_VLLM_RESOLVED_MODEL": str(snapshot),
            "_VLLM_RESOLVED_VIA": source,
            "_VLLM_RESOLVED_SNAPSHOT": "abc123",
        }
        assert values == expected | ({"HF_HUB_OFFLINE": "1"} if source == "flox" else {})

    def test_a_directory_with_a_quote_in_its_name(self, call: Call, tmp_path: Path) -> None:
        root = tmp_path / "it's $HOME"
        path = model(root / "tiny")
        assert call(VLLM_MODELS_DIR=str(root)) == 0
        (file,) = (tmp_path / "cache").iterdir()
        command = ["bash", "-c", 'set -a; . "$1"; printf %s "$_VLLM_RESOLVED_MODEL"', "bash", str(file)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == str(path)
        assert read_env_file(file)["_VLLM_RESOLVED_MODEL"] == str(path)

    def test_a_directory_with_a_newline_is_refused(self, call: Call, tmp_path: Path) -> None:
        model(tmp_path / "two\nlines" / "tiny")
        assert call(VLLM_MODELS_DIR=str(tmp_path / "two\nlines")) == 1

    def test_name_and_identity(self, tmp_path: Path) -> None:
        name = model_from_directory("tiny", model_id=None, org="acme", revision="v1")
        layout = Layout(root=tmp_path, data_dir=tmp_path / "data")
        file = f"vllm-model.acme-tiny.{HASH}.env"
        assert env_file_path(Settings(), layout, name) == tmp_path / "data" / "env" / file
        assert env_file_path(Settings(flox_env_cache=tmp_path), layout, name) == tmp_path / file
        assert env_file_path(Settings(model_env_file=tmp_path / "x"), layout, name) == tmp_path / "x"
        assert identity(name) == "acme/tiny@v1"


def test_json(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model(tmp_path / "models" / "tiny")
    assert call("--json") == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert {"model", "model_id", "revision", "path", "source", "env_file", "tried"} <= answer.keys()
    assert (answer["ok"], answer["path"], answer["source"]) == (True, str(path), "local")
    assert captured.err


def test_run_for_garrison_resolve(tmp_path: Path) -> None:
    path = model(tmp_path / "mine")
    settings = Settings(data_dir=tmp_path / "data")
    progress = MemoryProgress()
    answer = run(settings, str(path), progress=progress)
    assert answer["model_id"] == str(path)
    assert Path(answer["env_file"]).parent == tmp_path / "data" / "env"
    assert read_env_file(Path(answer["env_file"]))["_VLLM_RESOLVED_MODEL"] == str(path)
    with pytest.raises(InvalidError):
        run(settings, "", progress=progress)


@pytest.mark.system
def test_as_a_process(environ: Mapping[str, str], tmp_path: Path) -> None:
    model(tmp_path / "models" / "tiny")
    command = [
        sys.executable,
        "-c",
        "import sys; from garrison.cli.scripts.vllm_resolve_model import main; sys.exit(main())",
    ]
    done: Any = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"wrote {tmp_path}/cache/vllm-model.acme-tiny.{HASH}.env" in done.stderr
