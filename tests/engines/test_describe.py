import os
from collections.abc import Callable
from pathlib import Path

import pytest

from garrison.base.errors import EngineMissingError, InvalidError
from garrison.engines import registry
from garrison.engines.catalogue import load
from garrison.engines.environments import Environment
from garrison.engines.help.describe import catalogue_from_help, describe


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("vllm", marks=[pytest.mark.engine("vllm"), pytest.mark.timeout(300)]),
        pytest.param("llama_cpp", marks=pytest.mark.engine("llama_cpp")),
        pytest.param("mlx_lm", marks=pytest.mark.engine("mlx_lm")),
    ],
)
def test_the_shipped_catalogue_is_what_the_engine_says(name: str, real_engine: Callable[[str], Environment]) -> None:
    environment = real_engine(name)
    described = describe(registry.engine(name), environment.executable)
    assert described == load(name, described.version)


def test_a_help_without_options_is_refused() -> None:
    with pytest.raises(InvalidError, match="no options"):
        catalogue_from_help("vllm", "9.9", "usage: vllm\n")


def test_the_simulator_has_no_help_to_read() -> None:
    with pytest.raises(InvalidError):
        describe(registry.engine("sim"), Path("/usr/bin/python3"))


@pytest.mark.system
def test_a_program_that_fails_is_reported_with_its_last_words(tmp_path: Path) -> None:
    program = tmp_path / "mlx_lm.server"
    program.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    os.chmod(program, 0o755)
    with pytest.raises(EngineMissingError, match="ended with 3") as caught:
        describe(registry.engine("mlx_lm"), program)
    assert caught.value.details["output"] == ["broken"]
