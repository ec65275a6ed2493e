"""The next start recognises engines of every kind that `garrison serve` started. Simulators stand in for them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from garrison_serve import Garrison, Start, alive

pytestmark = pytest.mark.system

PROGRAM = """\
#!{python} -I
import os, sys
from garrison.sim.command import main
if "--version" in sys.argv:
    print("version: 11434")
    sys.exit()
port = sys.argv[sys.argv.index("--port") + 1]
if os.environ.get("MARK"):
    open(os.environ["MARK"], "w").write(str(os.getpid()))
sys.exit(main(["--model", "x", "--port", port]))
"""


@pytest.fixture
def programs(tmp_path: Path) -> Mapping[str, list[str]]:
    """The arguments that start a simulator as one of these engines. Its command line does not tell that it is one."""
    import tiny_model as maker

    gguf = str(maker.make_gguf(tmp_path / "tiny.gguf"))
    found = {}
    for name in ("llama_cpp", "mlx_lm", "own"):
        program = tmp_path / f"{name}-server"
        program.write_text(PROGRAM.format(python=sys.executable))
        program.chmod(0o755)
        found[name] = ["--executable", str(program)]
        if name != "own":
            found[name] += ["--engine", name]
    found["llama_cpp"] += ["--file", str(tmp_path / "llama.yaml")]
    (tmp_path / "llama.yaml").write_text(f"model: {gguf}\nengine: llama_cpp\n")
    return found


@pytest.fixture
def serve(start: Start, programs: Mapping[str, list[str]], tmp_path: Path) -> Any:
    """`serve("llama_cpp", port=…)`: a `garrison serve` of that engine, whose first process writes its pid to a file."""
    marks: list[Path] = []

    def begin(name: str, *arguments: str, port: int | None = None) -> tuple[Garrison, Path]:
        marks.append(tmp_path / f"mark{len(marks)}")
        chosen = ["--port", str(port)] if port is not None else []
        variables = {"GARRISON_PROCESS_SIGNATURES": "", "MARK": str(marks[-1])}
        words = programs[name]
        garrison = start({}, *words, *chosen, *arguments, variables=variables, model="--file" not in words)
        return garrison, marks[-1]

    yield begin
    for mark in marks:
        if mark.exists() and alive(int(mark.read_text())):
            os.kill(int(mark.read_text()), signal.SIGKILL)


def records(garrison: Garrison) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (garrison.home / "run" / "engines").iterdir()]


TITLES = {"llama_cpp": "llama.cpp", "mlx_lm": "MLX LM", "own": "vLLM"}


@pytest.mark.parametrize("name", TITLES)
def test_one_that_serves_is_refused_and_replaced_as_a_vllm_is(serve: Any, name: str) -> None:
    first, mark = serve(name)
    first.ready()
    pid = int(mark.read_text())
    (record,) = records(first)
    assert (record["engine"], record["port"]) == ("vllm" if name == "own" else name, first.port)
    assert record["main"].startswith(f"{pid} ")
    late, late_mark = serve(name, port=first.port)
    assert late.end() == 2, late.text
    assert f"held by your {TITLES[name]}, which was not stopped: pid {pid}, model " in late.text
    assert f"serving: {sys.executable} -I " in late.text
    assert "--replace" in late.text
    assert alive(pid)
    assert not late_mark.exists()
    new, new_mark = serve(name, "--replace", port=first.port)
    new.ready()
    assert not alive(pid)
    assert first.end() == 21
    assert f"was stopped while it was serving by pid {new.process.pid} " in first.text
    assert [one["main"].split()[0] for one in records(new)] == [new_mark.read_text()]
    new.process.terminate()
    assert new.end() == 0
    assert records(new) == []


def test_exec_is_recorded_under_the_pid_that_stays(serve: Any) -> None:
    first, mark = serve("llama_cpp", "--exec")
    first.until(mark.exists, what="the engine")
    assert int(mark.read_text()) == first.process.pid
    (record,) = records(first)
    assert record["main"].startswith(f"{first.process.pid} ")
    assert record["shim"] is None
    first.until(lambda: "Uvicorn running" in first.text or "startup complete" in first.text, what="it listens")
    late, _ = serve("llama_cpp", port=first.port)
    assert late.end() == 2, late.text
    assert "held by your llama.cpp, which was not stopped" in late.text
    new, _ = serve("llama_cpp", "--replace", port=first.port)
    new.ready()
    assert first.end() == 0  # the simulator ends so on SIGTERM
    assert [one["shim"] is None for one in records(new)] == [False], "that of the first is removed"


def test_a_record_that_a_killed_shim_left_is_removed_by_the_next_start(serve: Any) -> None:
    first, mark = serve("llama_cpp")
    first.ready()
    pid = int(mark.read_text())
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(shim, signal.SIGKILL)
    assert first.end(60) == 21
    assert not alive(pid)
    assert len(records(first)) == 1
    new, new_mark = serve("llama_cpp", port=first.port)
    new.ready()
    assert [one["main"].split()[0] for one in records(new)] == [new_mark.read_text()]


def test_a_dry_run_stops_nothing(serve: Any) -> None:
    first, mark = serve("llama_cpp")
    first.ready()
    late, _ = serve("llama_cpp", "--replace", "--dry-run", port=first.port)
    assert late.end() == 0, late.text
    assert f"port {first.port} is held by your llama.cpp, pid {mark.read_text()}" in late.text
    assert alive(int(mark.read_text()))


@pytest.mark.parametrize("wide", ["run", "run/engines"])
def test_a_directory_that_others_can_read_is_not_used(serve: Any, wide: str, clean_environ: Mapping[str, str]) -> None:
    """The engine serves all the same; it is said that a later start will not know it."""
    directory = Path(clean_environ["GARRISON_DATA_DIR"]) / wide
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    first, _ = serve("llama_cpp")
    first.ready()
    assert ("warning: the engine is not recorded" in first.text) == (wide == "run/engines")


def test_preflight_knows_it_and_vllm_preflight_does_not(serve: Any, clean_environ: Mapping[str, str]) -> None:
    first, mark = serve("llama_cpp")
    first.ready()
    pid = int(mark.read_text())
    env = {**clean_environ, "VLLM_SKIP_GPU_CHECK": "1", "GARRISON_PREFLIGHT_LOCKFILE": str(first.home / "p.lock")}

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, *words], env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout)

    script = "import sys; from garrison.cli.scripts.vllm_preflight import main; sys.exit(main())"
    env |= {"VLLM_HOST": "127.0.0.1", "VLLM_PORT": str(first.port)}
    code, body = run("-c", script, "--json")
    assert (code, body["code"], body["pids"]) == (2, "port-foreign", [pid])
    words = ("-m", "garrison.cli.main", "preflight", "--json", "--port", str(first.port))
    code, body = run(*words)
    assert (code, body["code"], body["state"]) == (2, "port-foreign", "serves")
    assert alive(pid)
    code, body = run(*words, "--replace")
    assert (code, body["reclaimed_roots"]) == (0, [pid])
    assert first.end() == 21
