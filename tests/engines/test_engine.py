import pytest

from garrison.base.errors import InvalidError
from garrison.engines.engine import EngineCommand


def test_the_environment_is_the_callers_with_what_the_command_says() -> None:
    command = EngineCommand(("/x",), {"A": "1"}, frozenset({"VLLM_PORT"}), {"VLLM_API_KEY": "MY_KEY"})
    made = command.environment({"PATH": "/bin", "VLLM_PORT": "8000", "MY_KEY": "s3cret", "A": "0"})
    assert made == {
        "PATH": "/bin",
        "PYTHONSAFEPATH": "1",
        "MY_KEY": "s3cret",
        "VLLM_API_KEY": "s3cret",
        "A": "1",
    }


def test_a_key_reaches_the_engine_and_is_in_no_repr() -> None:
    command = EngineCommand(("/x",), env_from={"VLLM_API_KEY": "MY_KEY"})
    command.environment({"MY_KEY": "s3cret"})
    assert "s3cret" not in repr(command)


def test_a_key_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(InvalidError, match="MY_KEY"):
        EngineCommand(("/x",), env_from={"VLLM_API_KEY": "MY_KEY"}).environment({})
