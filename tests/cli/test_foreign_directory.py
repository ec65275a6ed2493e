"""Commands run by root in a directory of somebody else's, full of modules and programs that Python or PATH would find.

Each of them leaves its name in a file; none may be there at the end.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system

NOBODY = 65534
MODULES = ("json", "typing", "asyncio", "random", "subprocess", "multiprocessing", "garrison", "keyring")
AT_START = ("sitecustomize", "usercustomize")
PROGRAMS = ("vllm", "nvidia-smi", "pkl", "uv", "bash", "env", "python", "cat")
# What vLLM does: a console script that starts workers with `python -c`, and looks a program up on PATH.
ENGINE = """\
import os, shutil, subprocess, sys
if sys.argv[1:] == ["--version"]:
    import json, random
    print("0.32.0")
elif sys.argv[-1].startswith("--help"):
    import json
    print("options:\\n  --flag X  Something.")
else:
    subprocess.run([sys.executable, "-c", "import json, random, multiprocessing, sys; print(sys.path)"], check=True)
    print("program:", shutil.which("nvidia-smi"), "directory:", os.getcwd(), open(sys.argv[-1]).read())
    sys.exit(3)
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The directory; `touched` beside it holds the names of what was run."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    touched = tmp_path / "touched"
    for name in (*MODULES, *AT_START):
        (directory / f"{name}.py").write_text(f"open({str(touched)!r}, 'a').write('{name} ')\n")
    for name in PROGRAMS:
        (directory / name).write_text(f"#!/bin/sh\necho -n {name}. >>{touched}\n")
        (directory / name).chmod(0o755)
    (directory / "template").write_text("from their template")
    if os.geteuid() == 0:
        for path in (directory, *directory.iterdir()):
            os.chown(path, NOBODY, NOBODY)
    return directory


@pytest.fixture
def environ(clean_environ: Mapping[str, str]) -> dict[str, str]:
    """With what people have without knowing it: an empty entry in PATH."""
    made = {name: value for name, value in clean_environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return made | {"PATH": f":{made['PATH']}"}


@pytest.fixture
def garrison(foreign: Path, environ: dict[str, str]) -> Any:
    """`garrison(…)`: the console script in the foreign directory, to its end."""

    def call(*arguments: str | Path, program: str = "garrison", **variables: str) -> subprocess.CompletedProcess[str]:
        argv = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
        return subprocess.run(
            argv, cwd=foreign, env=environ | variables, capture_output=True, text=True, timeout=60, check=False
        )

    return call


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "engine" / "vllm"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{ENGINE}")
    path.chmod(0o755)
    return path


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def nothing_ran(foreign: Path) -> bool:
    touched = foreign.with_name("touched")
    assert not touched.exists(), touched.read_text()
    return True


def test_the_simulator_is_served(
    foreign: Path, environ: dict[str, str], tiny_model: Path, port: int, until: Any
) -> None:
    argv = [Path(sys.executable).with_name("garrison"), "serve", tiny_model, "--engine", "sim", "--port", port]
    child = subprocess.Popen(
        [*map(str, argv)], cwd=foreign, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        until(lambda: _listens(port) or child.poll() is not None, what="the simulator")
        assert child.poll() is None, child.communicate()[0].decode()
    finally:
        child.send_signal(signal.SIGTERM)
        output = child.communicate(timeout=30)[0].decode()
    assert child.returncode in (0, 143), output
    assert nothing_ran(foreign)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("how", [[], ["--exec"]], ids=["supervised", "exec"])
def test_an_engine_keeps_the_directory_and_runs_nothing_of_it(
    garrison: Any, foreign: Path, engine: Path, tiny_model: Path, port: int, how: list[str]
) -> None:
    arguments = ["--executable", engine, "--port", port, "--logs", *how]
    done = garrison("serve", tiny_model, *arguments, "--", "--chat-template", "template")
    said = done.stdout + done.stderr
    assert f"directory: {foreign} from their template" in said
    assert "program: ./nvidia-smi" not in said
    assert nothing_ran(foreign)


def test_vllm_serve(garrison: Any, foreign: Path, engine: Path, tmp_path: Path, environ: dict[str, str]) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "x.env").write_text("export _VLLM_RESOLVED_MODEL='/models/tiny'\n")
    names = "TENSOR_PARALLEL_SIZE PIPELINE_PARALLEL_SIZE MAX_MODEL_LEN MAX_NUM_BATCHED_TOKENS KV_CACHE_DTYPE"
    variables = {f"VLLM_{name}": "1" for name in names.split()}
    variables |= {"VLLM_HOST": "127.0.0.1", "VLLM_PORT": "8000", "VLLM_SERVED_MODEL_NAME": "tiny"}
    variables |= {"FLOX_ENV_CACHE": str(cache), "VLLM_MODEL_ENV_FILE": str(cache / "x.env")}
    variables |= {"PATH": f":{engine.parent}:{environ['PATH']}", "VLLM_ENV_FILE_TRUSTED": "true"}
    done = garrison("--", "template", program="vllm-serve", **variables)
    assert (done.returncode, f"directory: {foreign}" in done.stdout) == (3, True), done
    assert nothing_ran(foreign)


def test_probes_of_an_engine(garrison: Any, foreign: Path, engine: Path) -> None:
    done = garrison("engine", "describe", "vllm", "--json", PATH=f":{engine.parent}:/usr/bin:/bin")
    assert (done.returncode, "--flag" in done.stdout) == (0, True), done
    assert nothing_ran(foreign)


def test_a_look_at_the_machine(garrison: Any, foreign: Path) -> None:
    assert garrison("doctor", "--offline").stdout
    garrison("preflight", "--dry-run")
    assert nothing_ran(foreign)


def test_an_engine_that_lies_there_is_not_found_by_an_empty_entry_of_path(
    garrison: Any, foreign: Path, tiny_model: Path
) -> None:
    done = garrison("serve", tiny_model, "--dry-run", PATH=":.:relative:/usr/bin:/bin")
    assert done.returncode == 20, done
    assert nothing_ran(foreign)


def test_commands_of_a_manifest(garrison: Any, foreign: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "key.sh").write_text(f"#!/bin/sh\npwd >{mine}/where\n{sys.executable} -m keyring\necho k3y-of-the-edge\n")
    (mine / "key.sh").chmod(0o755)
    (mine / "m.yaml").write_text(
        "stack: s\ntargets:\n  edge: {base_url: 'http://127.0.0.1:1', api_key: {command: [./key.sh]}}\n"
        "  other: {base_url: 'http://127.0.0.1:2', api_key: {command: [cat, /dev/null]}}\n"
        "adapters: {a: {targets: [edge, other], lora_path: /a}}\n"
    )
    garrison("apply", mine / "m.yaml", "--yes")
    assert (mine / "where").read_text() == "/\n"
    assert nothing_ran(foreign)


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_the_program_itself(garrison: Any, foreign: Path, argument: str) -> None:
    garrison(argument)
    assert nothing_ran(foreign)
