"""`garrison preflight -- COMMAND`: the port of the command, unless Garrison was told another one."""

from pathlib import Path

import pytest

from garrison.base.settings import Settings
from garrison.engines.argv import Endpoint
from garrison.launch.downstream_endpoint import as_the_command_says, endpoint_of_command

KNOWN = {
    "vllm serve m": Endpoint("0.0.0.0", 8000),
    "vllm serve m --port 9001 --host ::1": Endpoint("::1", 9001),
    "/opt/venv/bin/vllm serve m --uds /run/v.sock": Endpoint("0.0.0.0", 8000, "/run/v.sock"),
    "python -m vllm.entrypoints.openai.api_server --model m --port=9001": Endpoint("0.0.0.0", 9001),
    "numactl -N 0 vllm serve m --headless": Endpoint("0.0.0.0", 8000, protocol="none"),
    "vllm serve m --config {config}": Endpoint("0.0.0.0", 9003),
    "vllm serve m --config {config} --port 9004": Endpoint("0.0.0.0", 9004),
    "llama-server -m x.gguf": Endpoint("127.0.0.1", 8080),
    "llama-server -m x.gguf --port 9001": Endpoint("127.0.0.1", 9001),
    "mlx_lm.server --model m --port 9001": Endpoint("127.0.0.1", 9001),
}


@pytest.mark.parametrize("command", KNOWN)
def test_of_an_engine_that_is_known(command: str, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("port: 9003\n")
    assert endpoint_of_command(command.format(config=config).split(), {}) == KNOWN[command]


@pytest.mark.parametrize(
    "command", ["true", "sleep 5", "docker run vllm/vllm-openai m", "python server.py", "bash -c x"]
)
def test_of_any_other_command_nothing_is_known(command: str) -> None:
    assert endpoint_of_command(command.split(), {}) is None


def test_a_config_file_that_cannot_be_read_is_left_to_the_engine() -> None:
    assert endpoint_of_command(["vllm", "serve", "m", "--config", "/nonexistent.yaml"], {}) == Endpoint("0.0.0.0", 8000)


@pytest.mark.parametrize(
    ("flags", "words", "found"),
    [
        ({}, "vllm serve m --port 9001", ("0.0.0.0", 9001)),
        ({"engine_port": 9000}, "vllm serve m --port 9001", ("0.0.0.0", 9000)),
        ({"engine_host": "::1"}, "vllm serve m --port 9001", ("::1", 9001)),
        ({}, "vllm serve m --uds /x.sock", ("127.0.0.1", 8000)),
        ({}, "true", ("127.0.0.1", 8000)),
        ({}, "", ("127.0.0.1", 8000)),
    ],
)
def test_what_the_user_said_comes_first(flags: dict[str, object], words: str, found: tuple[str, int]) -> None:
    settings = Settings.load({}, groups=("endpoint",), flags=flags)
    made = as_the_command_says(settings, words.split(), {})
    assert (made.engine_host, made.engine_port) == found
