"""The program `vllm-serve` itself; the rows of the seed's tables are in `tests/launch/test_vllm_serve.py`."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HASH = "e7f063adcf7c"  # sha256("acme/tiny")[:12]
ENV_FILE = "export _VLLM_RESOLVED_MODEL='/models/tiny'\nexport HF_HOME='/models'\n"
ENGINE = """\
import json, os, sys
print(json.dumps({"argv": sys.argv[1:], "environ": dict(os.environ), "pid": os.getpid()}))
sys.exit(int(os.environ.get("FAKE_EXIT", "0")))
"""


@pytest.fixture
def cache(tmp_path: Path, clean_environ: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory with an env file, all variables, and a vLLM on PATH that prints what it was given."""
    directory = tmp_path / "cache"
    directory.mkdir()
    (directory / f"vllm-model.acme-tiny.{HASH}.env").write_text(ENV_FILE)
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable} -I\n{ENGINE}")
    program.chmod(0o755)
    variables = {
        "PATH": f"{program.parent}:/usr/bin:/bin",
        "FLOX_ENV_CACHE": str(directory),
        "VLLM_MODEL": "tiny",
        "VLLM_MODEL_ORG": "acme",
        "VLLM_HOST": "127.0.0.1",
        "VLLM_PORT": "8000",
        "VLLM_TENSOR_PARALLEL_SIZE": "1",
        "VLLM_PIPELINE_PARALLEL_SIZE": "1",
        "VLLM_KV_CACHE_DTYPE": "auto",
        "VLLM_MAX_MODEL_LEN": "2048",
        "VLLM_MAX_NUM_BATCHED_TOKENS": "2048",
        "VLLM_SERVED_MODEL_NAME": "my model",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return directory


def expected(cache: Path, *extra: str) -> list[str]:
    return [
        "serve", "/models/tiny", "--config", str(cache / "vllm-config.yaml"), "--host", "127.0.0.1", "--port", "8000",
        "--tensor-parallel-size", "1", "--pipeline-parallel-size", "1", "--kv-cache-dtype", "auto",
        "--max-model-len", "2048", "--max-num-batched-tokens", "2048", "--served-model-name", "my model",
        "--no-enable-prefix-caching", *extra,
    ]  # fmt: skip


PROGRAM = ["-c", "from garrison.cli.scripts.vllm_serve import main; import sys; sys.exit(main())"]


@pytest.mark.system
def test_standard_launch_replaces_the_process(cache: Path, clean_environ: Any) -> None:
    process = subprocess.Popen([sys.executable, *PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate(timeout=30)
    body = json.loads(out)
    assert (process.returncode, err) == (0, "")
    assert body["argv"] == expected(cache)
    assert body["pid"] == process.pid


@pytest.mark.system
def test_the_exit_code_is_the_engines(cache: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_EXIT", "7")
    assert run(*PROGRAM).code == 7


@pytest.mark.system
def test_environment(cache: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_API_KEY", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "x")
    environ = json.loads(run(*PROGRAM).out)["environ"]
    assert (environ["VLLM_API_KEY"], environ["VLLM_LOGGING_LEVEL"], environ["HF_HOME"]) == ("x", "x", "/models")
    assert sorted(name for name in environ if "VLLM_" in name) == ["VLLM_API_KEY", "VLLM_LOGGING_LEVEL"]


@pytest.mark.system
def test_print_cmd_prints_and_execs(cache: Path, run: Any) -> None:
    done = run(*PROGRAM, "--print-cmd", "--", "--extra-flag", "a b")
    assert json.loads(done.out)["argv"] == expected(cache, "--extra-flag", "a b")
    assert shlex.split(done.err) == ["CMD:", "vllm", *expected(cache, "--extra-flag", "a b")]


def test_dry_run_prints_and_does_not_exec(cache: Path, cli: Any) -> None:
    done = cli("--dry-run", "--", "--seed", "-1", program="vllm-serve")
    assert (done.code, done.out) == (0, "")
    assert shlex.split(done.err) == ["CMD:", "vllm", *expected(cache, "--seed", "-1")]


def test_a_key_among_the_extra_arguments_is_not_printed(cache: Path, cli: Any) -> None:
    done = cli("--dry-run", "--", "--api-key=sk-secret", program="vllm-serve")
    assert "sk-secret" not in done.err
    assert shlex.split(done.err)[-1] == "--api-key=***"


def test_dry_run_needs_no_engine(cache: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert cli("--dry-run", program="vllm-serve").code == 0


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(cli: Any, flag: str) -> None:
    done = cli(flag, program="vllm-serve")
    assert done.code == 0
    for word in ("--print-cmd", "--dry-run", "VLLM_SERVED_MODEL_NAME", "VLLM_ENV_FILE_TRUSTED"):
        assert word in done.out


def test_help_behind_the_separator_is_the_engines(cache: Path, cli: Any) -> None:
    done = cli("--dry-run", "--", "--help", program="vllm-serve")
    assert done.err.endswith("--help\n")


@pytest.mark.parametrize("word", ["--nope", "extra", "--max-model-len"])
def test_unknown_word(cache: Path, cli: Any, word: str) -> None:
    done = cli(word, program="vllm-serve")
    assert done.code == 64
    assert "after --" in done.err


def test_missing_variable(cache: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_MAX_MODEL_LEN")
    done = cli(program="vllm-serve")
    assert done.code == 1
    assert "VLLM_MAX_MODEL_LEN is not set" in done.err


def test_engine_missing(cache: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = cli(program="vllm-serve")
    assert done.code == 20
    assert "garrison engine install vllm" in done.err


def test_guarded_flag(cache: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("--dry-run", "--", "--port", "9", program="vllm-serve")
    assert done.code == 0
    assert "warning: --port is ignored, because VLLM_PORT sets it" in done.err
    monkeypatch.setenv("VLLM_STRICT_FLAGS", "1")
    assert cli("--dry-run", "--", "--port", "9", program="vllm-serve").code == 1


@pytest.mark.system
def test_the_env_file_of_resolve_is_read(cache: Path, cli: Any, run: Any, tiny_model: Path, monkeypatch: Any) -> None:
    """The two programs agree on the file's name and content."""
    (cache / f"vllm-model.acme-tiny.{HASH}.env").unlink()
    monkeypatch.setenv("VLLM_MODELS_DIR", str(tiny_model.parent))
    resolved = run("-c", "from garrison.cli.scripts.vllm_resolve_model import main; import sys; sys.exit(main())")
    assert resolved.code == 0, resolved
    done = cli("--dry-run", program="vllm-serve")
    assert shlex.split(done.err)[1:4] == ["vllm", "serve", str(tiny_model)]
