from pathlib import Path

import pytest

from garrison.base.errors import InvalidError
from garrison.engines import registry
from garrison.engines.argv import Endpoint
from garrison.engines.custom import Custom
from garrison.engines.engine import ServeOptions

ARGV = ("sglang", "serve", "--model-path={model}", "--host", "{host}", "--port", "{port}")


def test_placeholders_are_replaced_once() -> None:
    made = Custom(ARGV).command(Path("/bin/sglang"), ServeOptions("{port}/m", port=7, args=("--x", "{model}")))
    assert made.argv == (
        "/bin/sglang", "serve", "--model-path={port}/m", "--host", "127.0.0.1", "--port", "7", "--x", "{model}",
    )  # fmt: skip


def test_the_words_of_a_container_replace_the_command() -> None:
    options = ServeOptions("", port=7, program=("--port", "{port}"))
    assert Custom(("docker", "run", "x")).command(Path("/bin/docker"), options).argv == ("--port", "7")


def test_a_model_that_is_needed_and_not_named() -> None:
    with pytest.raises(InvalidError, match="no model is named"):
        Custom(ARGV).command(Path("/bin/x"), ServeOptions(""))
    with pytest.raises(InvalidError, match="needs a command"):
        Custom().command(Path("/bin/x"), ServeOptions("m"))


def test_what_is_known_of_it() -> None:
    made = Custom(ARGV, ready_path="/ready", apis=frozenset({"rerank"}))
    assert made.readiness.path == "/ready"
    assert made.capabilities.apis == {"rerank"}
    assert not made.capabilities.api_key
    assert made.endpoint(("--port", "1"), Endpoint("127.0.0.1", 9)).port == 9
    assert made.catalogue().options == ()
    assert registry.engine("custom").name == "custom"
    assert "custom" not in registry.names()
