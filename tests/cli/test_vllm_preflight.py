"""`vllm-preflight` row by row: the seed's tables of exit codes, variables and JSON, and the command line."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import UsageError
from garrison.base.settings import Settings
from garrison.cli.scripts.vllm_preflight import main, parse, run
from garrison.preflight.policy import RECLAIM, configured
from garrison.preflight.report import PreflightRequest, Thresholds

GROUPS = ("endpoint", "preflight", "start")


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def listener(port: int) -> Iterator[int]:
    """A port that this very process, which is no vLLM, listens on."""
    with socket.create_server(("127.0.0.1", port)):
        yield port


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, port: int) -> None:
    for name in [name for name in os.environ if name.startswith(("VLLM_", "GARRISON_", "CUDA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("VLLM_PORT", str(port))
    monkeypatch.setenv("VLLM_SKIP_GPU_CHECK", "1")
    monkeypatch.setenv("VLLM_PREFLIGHT_LOCKFILE", str(tmp_path / "{port}.lock"))


PARSED = [
    ("checks-only", [], {}, []),
    ("command", ["./start.sh", "arg1", "arg2"], {}, ["./start.sh", "arg1", "arg2"]),
    ("command-after-dashes", ["--", "python", "-m", "vllm"], {}, ["python", "-m", "vllm"]),
    ("nothing-after-dashes", ["--"], {}, []),
    ("the-commands-own-options", ["./x", "--json", "-h"], {}, ["./x", "--json", "-h"]),
    ("the-commands-own-dashes", ["./x", "--", "y"], {}, ["./x", "--", "y"]),
    ("dashes-then-option-like-command", ["--", "--odd"], {}, ["--odd"]),
    ("flags", ["--dry-run", "--json"], {"dry_run": True, "preflight_json": True}, []),
    ("flag-and-command", ["--dry-run", "--", "x"], {"dry_run": True}, ["x"]),
    ("help", ["-h"], {"help": True}, []),
]


@pytest.mark.parametrize(("arguments", "flags", "command"), [row[1:] for row in PARSED], ids=[row[0] for row in PARSED])
def test_usage(arguments: list[str], flags: dict[str, bool], command: list[str]) -> None:
    assert parse(arguments) == (flags, command)


def test_usage_error_is_64_so_that_2_keeps_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        parse(["--frobnicate"])
    assert main(["--frobnicate"]) == 64
    assert "--frobnicate" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_variable_and_exit_code(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([option]) == 0
    out = capsys.readouterr().out
    assert all(row[0] in out for row in VARIABLES)
    assert all(f"\n  {code} " in out for code in (0, 1, 2, 3, 4, 5, 13, 20, 22, 64))


def load(**environ: str) -> Settings:
    return Settings.load(environ, groups=GROUPS, seed_defaults=True)


# (variable, setting, default, [(text, value)], [texts that are refused])
VARIABLES: list[tuple[str, str, Any, list[tuple[str, Any]], list[str]]] = [
    (
        "VLLM_HOST",
        "engine_host",
        "0.0.0.0",
        [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("a.b", "a.b")],
        ["a b", "a/b"],
    ),
    ("VLLM_PORT", "engine_port", 8000, [("1", 1), ("65535", 65535)], ["0", "65536", "x", "80.5", "-1"]),
    ("VLLM_DRY_RUN", "dry_run", False, [("0", False), ("1", True)], ["2", "maybe"]),
    ("VLLM_SKIP_GPU_CHECK", "skip_gpu_check", False, [("0", False), ("1", True)], ["2"]),
    ("VLLM_MIN_FREE_GPU_GB", "min_free_gpu_gb", 4.0, [("0", 0.0), ("7.5", 7.5)], ["-1", "nan", "x"]),
    ("VLLM_MAX_GPU_TEMP_C", "max_gpu_temp_c", 85, [("1", 1), ("90", 90)], ["0", "8.5", "x"]),
    ("VLLM_MAX_GPU_UTIL_PCT", "max_gpu_util_pct", 95, [("0", 0), ("100", 100)], ["101", "-1", "x"]),
    (
        "VLLM_GPU_FAIL_ON",
        "gpu_fail_on",
        ("temperature",),
        [("memory,utilization", ("memory", "utilization")), (" temperature , memory ", ("temperature", "memory"))],
        ["power"],
    ),
    ("VLLM_GPU_DEVICES", "gpu_devices", (), [("0,GPU-a", ("0", "GPU-a"))], []),
    ("VLLM_ALLOW_OTHER_UID_KILL", "allow_other_uid_kill", False, [("0", False), ("1", True)], ["2"]),
    ("VLLM_STOP_TIMEOUT", "stop_timeout", 15, [("0", 0), ("30", 30)], ["-1", "1.5", "x"]),
    ("VLLM_PROCESS_SIGNATURES", "process_signatures", (), [("a.b, c d", ("a.b", "c d"))], []),
    (
        "VLLM_PREFLIGHT_LOCKFILE",
        "preflight_lockfile",
        "/tmp/vllm-preflight.{port}.lock",
        [("/run/x.lock", "/run/x.lock")],
        [],
    ),
    ("VLLM_PREFLIGHT_JSON", "preflight_json", False, [("0", False), ("1", True)], ["2"]),
    ("VLLM_PREFLIGHT_PROXY_CHILD", "preflight_proxy_child", True, [("0", False), ("1", True)], ["2"]),
    # The seed's README says 60; a big model takes longer, so unset means: as long as there is progress.
    ("VLLM_START_BIND_TIMEOUT", "start_bind_timeout", None, [("0.5", 0.5), ("60", 60.0)], ["0", "-1", "x"]),
    ("VLLM_START_BIND_POLL", "start_bind_poll", 0.2, [("1", 1.0)], ["0", "x"]),
]
NAMES = [row[0] for row in VARIABLES]


@pytest.mark.parametrize(("variable", "setting", "default", "good", "bad"), VARIABLES, ids=NAMES)
def test_variable(
    variable: str, setting: str, default: Any, good: list[tuple[str, Any]], bad: list[str], capsys: Any
) -> None:
    assert getattr(load(), setting) == default
    assert getattr(load(**{variable: ""}), setting) == default
    for text, value in good:
        assert getattr(load(**{variable: text}), setting) == value
        assert load(**{variable: text}).origins[setting] == variable


REFUSED = [(row[0], text) for row in VARIABLES for text in row[4]]


@pytest.mark.parametrize(("variable", "text"), REFUSED, ids=[f"{name}={text}" for name, text in REFUSED])
def test_bad_value_is_exit_1_and_named(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, text)
    assert main([]) == 1
    assert variable in capsys.readouterr().err


def test_cuda_visible_devices_is_the_fallback() -> None:
    assert load(CUDA_VISIBLE_DEVICES="1").gpu_devices == ("1",)
    assert load(CUDA_VISIBLE_DEVICES="1", VLLM_GPU_DEVICES="0").gpu_devices == ("0",)


def test_every_variable_reaches_the_request() -> None:
    values = load(
        VLLM_HOST="::1",
        VLLM_PORT="81",
        VLLM_DRY_RUN="1",
        VLLM_SKIP_GPU_CHECK="1",
        VLLM_MIN_FREE_GPU_GB="1",
        VLLM_MAX_GPU_TEMP_C="2",
        VLLM_MAX_GPU_UTIL_PCT="3",
        VLLM_GPU_FAIL_ON="memory",
        VLLM_GPU_DEVICES="0",
        VLLM_ALLOW_OTHER_UID_KILL="1",
        VLLM_STOP_TIMEOUT="4",
        VLLM_PROCESS_SIGNATURES="s",
        VLLM_PREFLIGHT_LOCKFILE="/run/{port}.l",
    )
    request = PreflightRequest.from_settings(values)
    assert request == PreflightRequest(
        host="::1",
        port=81,
        skip_gpu=True,
        thresholds=Thresholds(1.0, 2, 3, ("memory",)),
        gpu_devices=("0",),
        stop_timeout=4,
        signatures=("s",),
        lockfile=Path("/run/81.l"),
    )
    policy = configured(RECLAIM, values)
    assert (policy.living, policy.dry_run, policy.other_users, policy.gpus_first) == ("stop", True, True, False)


def test_lockfile_is_keyed_by_port_by_default() -> None:
    assert PreflightRequest.from_settings(load(VLLM_PORT="81")).lockfile == Path("/tmp/vllm-preflight.81.lock")


@pytest.mark.system
def test_exit_0_with_json_on_stdout_and_logs_on_stderr(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_PREFLIGHT_JSON", "1")
    assert main([]) == 0
    captured = capsys.readouterr()
    body = json.loads(captured.out)
    assert captured.out.count("\n") == 1
    assert (body["ok"], body["host"], body["port"], body["port_action"]) == (True, "0.0.0.0", port, "noop")
    assert body["gpu_check_source"] == "skipped"
    assert "is free" in captured.err


@pytest.mark.system
def test_without_json_nothing_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.system
@pytest.mark.parametrize("arguments", [["--json"], ["--json", "--dry-run"]], ids=["exit-2", "exit-2-in-dry-run"])
def test_exit_2_in_json(listener: int, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    body = json.loads(capsys.readouterr().out)
    assert (body["ok"], body["code"], body["exit_code"]) == (False, "port-foreign", 2)
    assert (body["host"], body["port"], body["pids"]) == ("0.0.0.0", listener, [os.getpid()])
    assert body["uids"] == [os.getuid()]
    assert len(body["cmdlines"]) == 1
    assert body["error"]


def test_exit_1_in_json_when_the_settings_are_bad(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_PREFLIGHT_JSON", "1")
    monkeypatch.setenv("VLLM_PORT", "0")
    assert main([]) == 1
    body = json.loads(capsys.readouterr().out)
    assert (body["ok"], body["code"], body["setting"]) == (False, "invalid", "engine_port")


def test_exit_1_for_json_with_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "true"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_exit_130_for_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("garrison.cli.scripts.vllm_preflight.run", interrupted)
    assert main([]) == 130


@pytest.mark.system
def test_lock_second_run_is_13_and_the_lock_goes_with_its_holder(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from garrison.preflight.check import port_lock

    request = PreflightRequest(host="0.0.0.0", port=port, lockfile=tmp_path / f"{port}.lock")
    with port_lock(request):
        assert main(["--json"]) == 13
        body = json.loads(capsys.readouterr().out)
        assert (body["code"], body["pid"], body["port"]) == ("locked", os.getpid(), port)
        assert main(["--dry-run"]) == 0
    assert main([]) == 0


@pytest.mark.system
def test_lock_symlink_is_refused(port: int, tmp_path: Path) -> None:
    (tmp_path / f"{port}.lock").symlink_to(tmp_path / "target")
    assert main([]) == 1
    assert not (tmp_path / "target").exists()


@pytest.mark.system
def test_dry_run_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry-run", "--", "touch", str(tmp_path / "made")]) == 0
    assert not (tmp_path / "made").exists()
    assert "would start touch" in capsys.readouterr().err


@pytest.mark.system
def test_a_refused_port_starts_nothing(listener: int, tmp_path: Path) -> None:
    assert main(["touch", str(tmp_path / "made")]) == 2
    assert not (tmp_path / "made").exists()


@pytest.mark.system
def test_run_is_what_both_commands_call(port: int) -> None:
    said: list[str] = []
    settings = load(VLLM_PORT=str(port), VLLM_SKIP_GPU_CHECK="1", VLLM_PREFLIGHT_LOCKFILE=f"/tmp/test.{port}.lock")
    assert run(settings, ["sh", "-c", "exit 3"], json=False, say=said.append) == 3
    assert said[0] == f"0.0.0.0 port {port} is free"
    Path(f"/tmp/test.{port}.lock").unlink()


HEAVY = ("pydantic", "rich", "typer", "httpx2", "huggingface_hub", "obstore", "psutil", "pynvml", "yaml", "asyncio")


@pytest.mark.system
def test_nothing_heavy_is_imported_on_the_way() -> None:
    code = (
        "import sys; from garrison.cli.scripts.vllm_preflight import main; code = main([]); "
        f"print(*sorted(set(sys.modules) & set({HEAVY!r} + ('subprocess', 'argparse', 'garrison.processes.procfs', "
        "'garrison.preflight.gpu.gpus')))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
