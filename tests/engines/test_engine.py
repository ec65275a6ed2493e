import pytest

from garrison.base.errors import InvalidError
from garrison.base.redaction import redacted
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


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY", "LLAMA_API_KEY"])
def test_a_key_reaches_the_engine_without_its_line_break(name: str) -> None:
    assert EngineCommand(("/x",)).environment({name: " s3cret-key\n"})[name] == "s3cret-key"
    assert EngineCommand(("/x",), env_from={"K": "MINE"}).environment({"MINE": "s3cret-key\r\n"})["K"] == "s3cret-key"
    assert redacted("it says s3cret-key") == "it says ***"


@pytest.mark.parametrize("command", [EngineCommand(("/x",)), EngineCommand(("/x",), env_from={"K": "VLLM_API_KEY"})])
def test_a_key_of_two_lines_is_refused_by_its_name(command: EngineCommand) -> None:
    with pytest.raises(InvalidError, match="VLLM_API_KEY") as caught:
        command.environment({"VLLM_API_KEY": "s3cret-one\ns3cret-two"})
    assert "s3cret" not in str(caught.value) + str(caught.value.hint) + str(caught.value.details)


def test_what_the_engine_gets_is_hidden_in_what_it_says() -> None:
    command = EngineCommand(("/x", "--api-key", "from-the-arguments"))
    command.environment({"OPENAI_API_KEY": "from-the-environment"})
    assert redacted("from-the-arguments, from-the-environment") == "***, ***"
