"""Command lines in the files that they come from."""

import json

import pytest

from garrison.base.errors import InvalidError
from garrison.engines.parse.command import parse_command
from garrison.engines.parse.pasted import unwrap

EXPECTED = ("m", ("--port", "1", "--chat-template", "a b"))


@pytest.mark.parametrize(
    "text",
    [
        "vllm serve m --port 1 --chat-template 'a b'",
        "ExecStart=/usr/bin/vllm serve m --port 1 --chat-template 'a b'",
        'ExecStart=-/usr/bin/vllm serve m \\\n  --port 1 \\\n  --chat-template "a b"',
        "ExecStart=vllm serve m \\\n# the port\n  --port 1 \\\n ; and more\n  --chat-template 'a b'",
        "[Service]\nExecStart=vllm serve m \\\n  # the port\n  --port 1 \\\n;x\n  --chat-template 'a b'\nType=exec\n",
        'command: ["vllm", "serve", "m", "--port", 1, "--chat-template", "a b"]',
        "command: [vllm, serve, m, --port, 1, --chat-template, a b]",
        "command: vllm serve m --port 1 --chat-template 'a b'",
        "command: >-\n  vllm serve m\n  --port 1\n  --chat-template 'a b'\n",
        'CMD ["vllm", "serve", "m", "--port", "1", "--chat-template", "a b"]',
        '["vllm", "serve", "m", "--port", "1", "--chat-template", "a b"]',
        "(venv) $ vllm serve m --port 1 --chat-template 'a b'",
        "[root@node7 ~]# vllm serve m --port 1 --chat-template 'a b'",
        "% vllm serve m --port 1 --chat-template 'a b'",
        "> vllm serve m --port 1 --chat-template 'a b'",
        "!vllm serve m --port 1 --chat-template 'a b'",
        "%%bash\nvllm serve m --port 1 --chat-template 'a b'",
        "```sh\nvllm serve m \\\n  --port 1 --chat-template 'a b'\n```\n",
        "vllm serve m \\ \n  --port 1 --chat-template 'a b'",
        "vllm serve m `\r\n  --port 1 --chat-template 'a b'",
        "vllm serve m ^\r\n  --port 1 --chat-template 'a b'",
        "[Service]\nEnvironment=MODEL=m PORT=1\nExecStart=vllm serve ${MODEL} --port $PORT --chat-template 'a b'\n",
        "ExecStart=/bin/sh -c \"exec vllm serve m --port 1 --chat-template 'a b' >> /var/log/x 2>&1\"",
        "services:\n  v:\n    image: vllm/vllm-openai\n    entrypoint: [sh, -c]\n"
        "    command: [\"vllm serve m --port 1 --chat-template 'a b'\"]\n",
        "services:\n  v:\n    image: vllm/vllm-openai\n    entrypoint: vllm serve\n"
        "    command: m --port 1 --chat-template 'a b'\n",
        "containers:\n- name: v\n  image: vllm/vllm-openai\n  command: [/bin/sh, -c]\n"
        "  args: [\"vllm serve m --port 1 --chat-template 'a b'\"]\n",
        "[Service]\nExecStart=/bin/true\nExecStart=\nExecStart=vllm serve m --port 1 --chat-template 'a b'\n",
        "services:\n  web:\n    image: nginx\n    command: start\n  v:\n    image: vllm/vllm-openai\n"
        "    command: --model m --port 1 --chat-template 'a b'\n",
        "services:\n  v:\n    image: vllm/vllm-openai\n    command: |\n      --model m\n      --port 1\n"
        "      --chat-template 'a b'\n",
        "CMD vllm serve m --port 1 --chat-template 'a b'",
        "ENTRYPOINT exec vllm serve m --port 1 --chat-template 'a b'",
        "vllm\u00a0serve m \\\n\u00a0\u00a0--port\u202f1 --chat-template 'a b'",
        "\ufeffvllm serve m --port 1 --chat-template 'a b'",
        '  - args: ["vllm", "serve", "m", "--port", "1", "--chat-template", "a b"]',
    ],
)
def test_the_command_in_it(text: str) -> None:
    found = parse_command(unwrap(text))
    assert (found.model, found.args) == EXPECTED


def test_blanks_of_a_page_stay_in_quotes() -> None:
    found = parse_command(unwrap('vllm\u00a0serve m --chat-template \'a\u00a0b\' --revision "c\u2003\\"d"'))
    assert found.args == ("--chat-template", "a\u00a0b", "--revision", 'c\u2003"d')


POD = "containers:\n- image: vllm/vllm-openai\n  env: [{name: MODEL, value: a/b}, {name: SEED, value: '1'}]\n  "


@pytest.mark.parametrize(
    "keys",
    [
        "args: [--model, $(MODEL), --seed, $(SEED)]",
        "args: ['--model=$(MODEL)', '--seed', '1']",
        "command: [sh, -c, 'vllm serve $MODEL --seed ${SEED}']",
        "command: [sh, -c]\n  args: ['exec vllm serve $(MODEL) --seed $SEED']",
    ],
)
def test_the_values_of_a_pod_are_those_of_its_variables(keys: str) -> None:
    found = parse_command(unwrap(POD + keys))
    assert (found.model, found.args) == ("a/b", ("--seed", "1"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (POD + "args: [--model, $(OTHER)]", r"\$\("),
        (POD + "args: [--model, '$MODEL']", r"\$MODEL"),
        (POD + "command: [sh, -c, 'vllm serve $OTHER']", r"\$OTHER"),
        ("services: {v: {image: vllm/vllm-openai, command: [--model, '${MODEL}']}}", r"\$\{MODEL\}"),
        ("services: {v: {image: vllm/vllm-openai, command: [--model, '$MODEL'], environment: {MODEL: m}}}", r"\$MODEL"),
        ('CMD ["vllm", "serve", "$MODEL"]', r"\$MODEL"),
    ],
)
def test_a_variable_of_a_list_whose_value_is_not_known_is_no_text(text: str, said: str) -> None:
    with pytest.raises(InvalidError, match=f"contains {said}"):
        parse_command(unwrap(text))


@pytest.mark.parametrize("word", ["a$$b", "$$(MODEL)", '{"a": "$$x"}', '--x={"a":"\\\\"}', "5$", "a`b"])
def test_other_words_of_a_list_stay_as_they_are(word: str) -> None:
    found = parse_command(
        unwrap(f"services:\n  v:\n    image: vllm/vllm-openai\n    command: [m, --revision, {json.dumps(word)}]")
    )
    assert found.args[1] == word.replace("$$", "$")


def test_services_that_start_two_engines_are_not_guessed_between() -> None:
    one = "image: vllm/vllm-openai\n    command: --model m"
    with pytest.raises(InvalidError, match="2 commands"):
        parse_command(unwrap(f"services:\n  a:\n    {one}\n  b:\n    {one}\n"))


def test_signs_of_a_unit() -> None:
    found = parse_command(unwrap("ExecStart=vllm serve m --chat-template 100%%$$x"))
    assert found.args == ("--chat-template", "100%$x")


@pytest.mark.parametrize("text", ["[", "command: {a: b}", "[1, {}]", "[" * 2000, "command:", ""])
def test_what_is_no_command_is_left_to_the_parser(text: str) -> None:
    assert isinstance(unwrap(text), str)


@pytest.mark.parametrize(
    "keys",
    [
        "entrypoint: sleep\n    command: '5'",
        "entrypoint: [sleep]\n    command: ['5']",
        "command: [sleep]\n    args: ['5']",
    ],
)
def test_another_program_of_an_image_is_not_taken_for_a_model(keys: str) -> None:
    with pytest.raises(InvalidError, match="'sleep' is not the program"):
        parse_command(unwrap(f"services:\n  v:\n    image: vllm/vllm-openai\n    {keys}\n"))
