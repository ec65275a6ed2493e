"""Command lines in the files that they come from."""

import pytest

from garrison.engines.parse.command import parse_command
from garrison.engines.parse.pasted import unwrap

EXPECTED = ("m", ("--port", "1", "--chat-template", "a b"))


@pytest.mark.parametrize(
    "text",
    [
        "vllm serve m --port 1 --chat-template 'a b'",
        "ExecStart=/usr/bin/vllm serve m --port 1 --chat-template 'a b'",
        'ExecStart=-/usr/bin/vllm serve m \\\n  --port 1 \\\n  --chat-template "a b"',
        'command: ["vllm", "serve", "m", "--port", 1, "--chat-template", "a b"]',
        "command: [vllm, serve, m, --port, 1, --chat-template, a b]",
        "command: vllm serve m --port 1 --chat-template 'a b'",
        "command: >-\n  vllm serve m\n  --port 1\n  --chat-template 'a b'\n",
        'CMD ["vllm", "serve", "m", "--port", "1", "--chat-template", "a b"]',
        '["vllm", "serve", "m", "--port", "1", "--chat-template", "a b"]',
        '  - args: ["vllm", "serve", "m", "--port", "1", "--chat-template", "a b"]',
    ],
)
def test_the_command_in_it(text: str) -> None:
    found = parse_command(unwrap(text))
    assert (found.model, found.args) == EXPECTED


def test_signs_of_a_unit() -> None:
    found = parse_command(unwrap("ExecStart=vllm serve m --chat-template 100%%$$x"))
    assert found.args == ("--chat-template", "100%$x")


@pytest.mark.parametrize("text", ["[", "command: {a: b}", "[1, {}]", "[" * 2000, "command:", ""])
def test_what_is_no_command_is_left_to_the_parser(text: str) -> None:
    assert isinstance(unwrap(text), str)
