import json
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from garrison.engines.environments import mark_complete
from garrison.launch.doctor.machine import machine_facts


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A vLLM on PATH, so that the engine check passes."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 0.32.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def lines(out: str) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(out)["checks"]}


def test_json(cli: Any, engine: Path) -> None:
    done = cli("doctor", "--offline", "--json", "--port", "54321")
    body = json.loads(done.out)
    found = lines(done.out)
    assert body["ok"] == all(check["status"] != "fail" for check in body["checks"])
    assert done.code == (0 if body["ok"] else 1)
    assert found["vllm"]["value"] == f"0.32.0 at {engine}"
    assert found["hub"]["value"] == "not asked (offline)"
    assert found["port"]["value"] == "127.0.0.1:54321 is free"
    for check in body["checks"]:
        assert (check["status"] in ("ok", "skipped")) != bool(check["remedy"])


@pytest.mark.system
def test_a_port_that_is_held(cli: Any, engine: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = cli("doctor", "--offline", "--json", "--port", str(listener.getsockname()[1]))
    assert lines(done.out)["port"]["status"] == "warn"


@pytest.mark.system
def test_a_hub_that_is_away(cli: Any, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    found = lines(cli("doctor", "--json", "--port", "54321").out)
    assert found["hub"]["status"] == "warn"
    assert found["hub"]["value"].startswith("http://127.0.0.1:9: ConnectError")
    assert "Air-gapped" in found["hub"]["remedy"]


def test_no_engine_is_red(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = cli("doctor", "--offline", "--port", "54321")
    assert done.code == 1
    assert "✗ engines" in done.out.replace("  ", " ")
    assert "→ garrison engine install vllm" in done.out
    assert "the simulator works" in " ".join(done.out.split())
    assert re.search(r"This machine is not ready to serve: \d+ of \d+ checks failed", done.out)


def test_what_was_not_checked_is_not_ticked(cli: Any, engine: Path) -> None:
    done = cli("doctor", "--offline", "--port", "54321")
    assert re.search(r"(?m)^– +clock +not checked", done.out)
    assert re.search(r"(?m)^– +hub +not asked", done.out)


def test_an_engine_that_does_not_run(cli: Any, engine: Path) -> None:
    engine.write_text("#!/bin/sh\nexit 3\n")
    found = lines(cli("doctor", "--offline", "--json", "--port", "54321").out)
    assert found["vllm"]["status"] == "fail"


def test_an_engine_whose_environment_was_moved(cli: Any, engine: Path, clean_environ: Any) -> None:
    """Its metadata still tells a version; and the vLLM on PATH does not take its place."""
    environment = Path(clean_environ["GARRISON_DATA_DIR"]) / "engines" / "vllm" / "0.31.0+cpu"
    program = environment / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text("#!/before/bin/python\n")
    program.chmod(0o755)
    (environment / "lib" / "python3.11" / "site-packages" / "vllm-0.31.0.dist-info").mkdir(parents=True)
    mark_complete(environment, engine="vllm", version="0.31.0", device="cpu", executable="bin/vllm", installed_at="x")
    found = lines(cli("doctor", "--offline", "--json", "--port", "54321").out)["vllm"]
    assert found["status"] == "fail"
    assert "its interpreter /before/bin/python is missing" in found["value"]
    assert found["remedy"] == "garrison engine install vllm --version 0.31.0 --device cpu"
    served = cli("serve", "acme/tiny", "--dry-run")
    assert served.code == 20
    assert "garrison engine install vllm --version 0.31.0 --device cpu" in served.err


def test_green_page(cli: Any, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def well(*arguments: Any, **options: Any) -> Any:
        gib = 1024**3
        return replace(
            machine_facts(*arguments, **options), driver=None, gpus=(), gpu_problem=None, memory_available=100 * gib,
            disk_free=100 * gib, shm_total=gib, port=None, open_files=65536, processes=65536, supported_system=True,
        )  # fmt: skip

    monkeypatch.setattr("garrison.cli.serve.doctor.machine_facts", well)
    done = cli("doctor", "--offline")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "This machine can serve."


@pytest.mark.system
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_whatever_the_output_can_show(run: Any, clean_environ: Any, engine: Path, encoding: str) -> None:
    environ = {**clean_environ, "PYTHONIOENCODING": encoding}
    done = run("-m", "garrison.cli.main", "doctor", "--offline", env=environ)
    assert done.code in (0, 1), done.err
    assert "this is a bug" not in done.err
    assert re.search(r"^(\+|✓) system", done.out, re.MULTILINE)
    body = run("-m", "garrison.cli.main", "doctor", "--offline", "--json", env=environ)
    assert json.loads(body.out)["checks"]
