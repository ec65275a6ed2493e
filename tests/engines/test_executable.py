import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from garrison.base.errors import EngineMissingError
from garrison.base.exit_codes import ExitCode
from garrison.engines import registry
from garrison.engines.environments import Environment, mark_complete
from garrison.engines.executable import _PROGRAMS, Located, locate


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    os.chmod(path, 0o755)
    return path


def environment(data_dir: Path) -> Path:
    path = data_dir / "engines" / "vllm" / "0.32.0+cpu"
    made = program(path / "bin" / "vllm")
    mark_complete(path, engine="vllm", version="0.32.0", device="cpu", executable="bin/vllm", installed_at="x")
    return made


def test_a_path_that_was_given_comes_before_the_environment_and_that_before_path(tmp_path: Path) -> None:
    vllm = registry.engine("vllm")
    on_path = program(tmp_path / "bin" / "vllm")
    environ = {"PATH": str(on_path.parent)}
    data_dir = tmp_path / "data"
    assert locate(vllm, data_dir=data_dir, environ=environ) == Located(on_path, "path")
    installed = environment(data_dir)
    assert locate(vllm, data_dir=data_dir, environ=environ) == Located(installed, "environment", "0.32.0+cpu")
    other = program(tmp_path / "other")
    found = locate(vllm, data_dir=data_dir, environ=environ, explicit=str(other))
    assert found == Located(other, "explicit")


def test_an_environment_that_lost_its_program_is_not_passed_over(tmp_path: Path) -> None:
    """A vLLM of another version on PATH would be a surprise; `engine install` repairs the chosen one."""
    lost = environment(tmp_path)
    lost.unlink()
    on_path = program(tmp_path / "bin" / "vllm")
    found = locate(registry.engine("vllm"), data_dir=tmp_path, environ={"PATH": str(on_path.parent)})
    assert found == Located(lost, "environment", "0.32.0+cpu")
    assert found.remedy("vllm") == "garrison engine install vllm --version 0.32.0 --device cpu"
    assert "garrison engine install vllm" in Located(on_path, "path").remedy("vllm")


def test_nowhere_is_exit_20_and_says_how_to_install(tmp_path: Path) -> None:
    with pytest.raises(EngineMissingError) as caught:
        locate(registry.engine("vllm"), data_dir=tmp_path, environ={"PATH": str(tmp_path)})
    assert caught.value.exit_code == ExitCode.ENGINE_MISSING
    install = "garrison engine install vllm"
    assert caught.value.hint == f"{install}; without a GPU, --engine llama_cpp or mlx_lm would do as well"


def test_what_is_here_would_do_as_well(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "mlx_lm.server")
    with pytest.raises(EngineMissingError) as caught:
        locate(registry.engine("llama_cpp"), data_dir=tmp_path, environ={"PATH": str(tmp_path / "bin")})
    assert caught.value.hint == "garrison engine install llama_cpp; or --engine mlx_lm, which is here already"
    environment(tmp_path)
    with pytest.raises(EngineMissingError) as caught:
        locate(registry.engine("llama_cpp"), data_dir=tmp_path, environ={"PATH": str(tmp_path / "bin")})
    assert str(caught.value.hint).endswith("; or --engine vllm, which is here already")


def test_the_programs_are_those_of_the_engines() -> None:
    assert {one.name: one.executable for one in map(registry.engine, _PROGRAMS)} == _PROGRAMS


def test_an_explicit_path_that_is_no_program_is_not_replaced_by_another(tmp_path: Path) -> None:
    environment(tmp_path)
    with pytest.raises(EngineMissingError, match="nowhere"):
        locate(registry.engine("vllm"), data_dir=tmp_path, environ={"PATH": ""}, explicit=str(tmp_path / "nowhere"))


def test_the_simulator_is_always_there(tmp_path: Path) -> None:
    found = locate(registry.engine("sim"), data_dir=tmp_path, environ={})
    assert found == Located(Path(sys.executable), "garrison")


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        pytest.param("llama_cpp", "--version", marks=pytest.mark.engine("llama_cpp")),
        pytest.param("mlx_lm", "--help", marks=pytest.mark.engine("mlx_lm")),
    ],
)
def test_a_real_engine_runs_from_its_environment(
    name: str, argument: str, real_engine: Callable[[str], Environment]
) -> None:
    environment = real_engine(name)
    engine = registry.engine(name)
    found = locate(engine, data_dir=environment.path.parents[2], environ={"PATH": "/usr/bin:/bin"})
    assert found == Located(environment.executable, "environment", environment.name)
    subprocess.run([found.path, argument], check=True, capture_output=True)
    assert engine.version(found.path).split("+")[0] == environment.version
