import re
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.engines.parse.command import parse_command

# The rows of llamactl's parser that its users rely on, and those it gets wrong.
ROWS = [
    ("vllm serve m", "vllm", "m", ()),
    ("vllm m --port 1", "vllm", "m", ("--port", "1")),
    ("/usr/bin/vllm serve m --port 8000", "vllm", "m", ("--port", "8000")),
    ("vllm serve --model m", "vllm", "m", ()),
    ("vllm serve --model=m --a=b", "vllm", "m", ("--a=b",)),
    ("vllm serve m --api-key a --api-key b", "vllm", "m", ("--api-key", "a", "--api-key", "b")),
    ("vllm serve m --enable-expert-parallel", "vllm", "m", ("--enable-expert-parallel",)),
    ("vllm serve m --unknown-flag value", "vllm", "m", ("--unknown-flag", "value")),
    ("vllm serve m --compilation-config '{\"mode\": 3}'", "vllm", "m", ("--compilation-config", '{"mode": 3}')),
    ("vllm serve m --compilation-config 3 --revision 1234", "vllm", "m",
     ("--compilation-config", "3", "--revision", "1234")),
    ("vllm serve m --max-model-len 32k --swap-space 4.5", "vllm", "m",
     ("--max-model-len", "32k", "--swap-space", "4.5")),
    ("vllm serve m --lora-modules a=b c=d", "vllm", "m", ("--lora-modules", "a=b", "c=d")),
    ("vllm serve m -tp 2", "vllm", "m", ("-tp", "2")),
    ("vllm serve m --served-model-name foo bar", "vllm", "m", ("--served-model-name", "foo", "bar")),
    ("vllm serve --enforce-eager m", "vllm", "m", ("--enforce-eager",)),
    ("vllm serve --dtype half m", "vllm", "m", ("--dtype", "half")),
    ("vllm serve m --hf-overrides.rope_theta 1", "vllm", "m", ("--hf-overrides.rope_theta", "1")),
    ("vllm serve m --no-enable-prefix-caching --seed 0", "vllm", "m", ("--no-enable-prefix-caching", "--seed", "0")),
    ("python -m vllm.entrypoints.openai.api_server --model m -O3", "vllm", "m", ("-O3",)),
    ("python3.11 -u -m vllm.entrypoints.cli.main serve m", "vllm", "m", ()),
    ("uv run vllm serve m", "vllm", "m", ()),
    ("llama-server -m x.gguf -ngl -1", "llama_cpp", "x.gguf", ("-ngl", "-1")),
    ("llama-server --model=x.gguf -ngl all --reasoning-budget -1", "llama_cpp", "x.gguf",
     ("-ngl", "all", "--reasoning-budget", "-1")),
    ("llama-server -hf a/b:Q4 -fa on --temp 0", "llama_cpp", None, ("-hf", "a/b:Q4", "-fa", "on", "--temp", "0")),
    ("llama-server -m x.gguf -nkvo --control-vector-layer-range 1 2", "llama_cpp", "x.gguf",
     ("-nkvo", "--control-vector-layer-range", "1", "2")),
    ("mlx_lm.server --model X --temp 0.0", "mlx_lm", "X", ("--temp", "0.0")),
    ("mlx_lm server --model X", "mlx_lm", "X", ()),
    ("python -m mlx_lm.server --model X", "mlx_lm", "X", ()),
    ("python -m garrison.sim --model X --port 1", "sim", "X", ("--port", "1")),
    ("python -P -m garrison.sim --model X --port 1", "sim", "X", ("--port", "1")),
    ("$ nohup vllm serve m &", "vllm", "m", ()),
    ("vllm serve m \\\n  --port 1 \\\n  # a remark\n", "vllm", "m", ("--port", "1")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "engine", "model", "args"), ROWS, ids=[row[0][:60] for row in ROWS])
def test_command_lines(text: str, engine: str, model: str | None, args: tuple[str, ...]) -> None:
    parsed = parse_command(text)
    assert (parsed.engine, parsed.model, parsed.args) == (engine, model, args)


@pytest.mark.parametrize(
    ("text", "env"),
    [
        ("CUDA_VISIBLE_DEVICES=0 HF_TOKEN='a b' vllm serve m", {"CUDA_VISIBLE_DEVICES": "0", "HF_TOKEN": "a b"}),
        ("env A=1 vllm serve m", {"A": "1"}),
        ("export A=1\nB=2\nvllm serve m", {"A": "1", "B": "2"}),
        ("A= vllm serve m", {"A": ""}),
    ],
)
def test_assignments_are_environment(text: str, env: dict[str, str]) -> None:
    parsed = parse_command(text)
    assert parsed.env == env
    assert parsed.model == "m"
    assert parsed.argv == ("vllm", "serve", "m")


def test_options_keep_each_occurrence_with_its_values() -> None:
    parsed = parse_command("vllm serve m --middleware a --middleware b --enforce-eager --lora-modules x=1 y=2 --s=")
    assert parsed.options == {
        "--middleware": (("a",), ("b",)),
        "--enforce-eager": ((),),
        "--lora-modules": (("x=1", "y=2"),),
        "--s": (("",),),
    }


def test_llama_server_takes_any_next_word_for_a_value() -> None:
    parsed = parse_command("llama-server -m x.gguf -r --user --port 1")
    assert parsed.options == {"-r": (("--user",),), "--port": (("1",),)}


@pytest.mark.parametrize(
    ("text", "engine", "model", "args"),
    [
        ("serve m --port 1", "vllm", "m", ("--port", "1")),
        ("--model m --port 1", "vllm", "m", ("--port", "1")),
        ("org/m --port 1", "vllm", "org/m", ("--port", "1")),
        ("-m x.gguf -c 0", "llama_cpp", "x.gguf", ("-c", "0")),
    ],
)
def test_arguments_alone_are_understood_when_the_engine_is_known(
    text: str, engine: str, model: str, args: tuple[str, ...]
) -> None:
    parsed = parse_command(text, engine)
    assert (parsed.executable, parsed.argv, parsed.model, parsed.args) == (None, (), model, args)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("   # nothing", "empty"),
        ("A=1", "empty"),
        ("vllm serve 'm", "not closed"),
        ("vllm serve m ---flag x", "three dashes"),
        ("nginx -g x", "'nginx' is not the program"),
        ("python train.py", "runs train.py"),
        ("python", "runs no module"),
        ("python -c 'import vllm'", "runs code"),
        ("uv run script.py", "'script.py' is not the program"),
        ("docker run --entrypoint sleep vllm/vllm-openai 5", "'sleep' is not the program"),
        ("docker run -it vllm/vllm-openai:latest bash", "bash starts a shell"),
        ("bash -c vllm serve m", "bash runs `vllm` alone, without `serve m`"),
        ("bash run.sh", "bash starts a shell"),
        ("su - bob", "su starts a shell"),
        ("--model m --port 8000", "only arguments were pasted, --model first"),
        ("if true; then vllm serve m; fi", "`if`"),
        ("while :; do vllm serve m; done", "`while`"),
        ("vllm serve m || vllm serve n", r"'\|\|'"),
        ("vllm serve m | python x.py", r"'\|' to python"),
        ("pip install vllm", "'pip' is not the program"),
        ("pip install vllm; echo done", "2 commands"),
        ("python -m http.server", "http.server"),
        ("vllm bench serve", "starts no server"),
        ("vllm serve a\nvllm serve b", "2 commands"),
        ("vllm serve $MODEL", "MODEL"),
        ("vllm serve m <<EOF", "'<<'"),
        ("docker compose up", "only `docker run`"),
        ("docker run", "no image"),
        ("docker run ghcr.io/ggml-org/llama.cpp:full --run -m x.gguf", "starts no server"),
        ("docker run ghcr.io/ggml-org/llama.cpp:full-cuda -b -m x.gguf", "starts no server"),
        ("docker run ghcr.io/ggml-org/llama.cpp:light -m x.gguf", "starts no server"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        parse_command(text)


def test_another_engines_command_is_refused() -> None:
    with pytest.raises(InvalidError, match="starts vllm, not llama_cpp"):
        parse_command("vllm serve m", "llama_cpp")


def test_secrets_stay_out_of_the_repr() -> None:
    parsed = parse_command("HF_TOKEN=hf_secret vllm serve m --api-key s3cret")
    assert "secret" not in repr(parsed)
    assert "s3cret" not in repr(parsed)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
FLAGS = st.sampled_from(
    ["--port", "--max-model-len", "--enforce-eager", "--no-enable-lora", "-tp", "--a.b.c", "--lora-modules", "--x=1"]
)
WORDS = st.lists(st.one_of(FLAGS, TEXT, st.integers().map(str), st.just('{"a": [1, "b c"]}')), max_size=8)


@settings(deadline=None)
@given(
    st.sampled_from([("vllm", "serve", "m"), ("llama-server",), ("mlx_lm.server",), ("/opt/v/bin/vllm", "serve", "m")]),
    WORDS.filter(lambda words: not any(re.match(r"---+\w", word) for word in words)),
)
def test_what_shlex_joins_is_parsed_to_the_same_argv(head: tuple[str, ...], words: list[str]) -> None:
    argv = (*head, *words)
    parsed = parse_command(shlex.join(argv))
    assert parsed.argv == argv
    assert parsed.executable == head[0]


@settings(deadline=None)
@given(WORDS.filter(lambda words: not any(re.match(r"---+\w|--model", word) for word in words)))
def test_no_argument_is_lost_or_moved(words: list[str]) -> None:
    parsed = parse_command(shlex.join(("vllm", "serve", "m", *words)))
    assert parsed.model == "m"
    assert parsed.args == tuple(words)


SAME = [
    "uvx --from vllm vllm serve m --seed 1",
    "uvx vllm@0.32.0 serve m --seed 1",
    "uvx --with x -p 3.12 vllm serve m --seed 1",
    "uv tool run --from vllm vllm serve m --seed 1",
    "uv run --with vllm -- vllm serve m --seed 1",
    "uv --offline --directory /x run vllm serve m --seed 1",
    "uv run -m vllm.entrypoints.openai.api_server --model m --seed 1",
    "uv run --python 3.12 python -m vllm serve m --seed 1",
    "pixi run -e gpu vllm serve m --seed 1",
    "micromamba run -n x vllm serve m --seed 1",
    "flox activate -d /x -- vllm serve m --seed 1",
    "nix develop .#gpu -c vllm serve m --seed 1",
    "python -X faulthandler -m vllm.entrypoints.openai.api_server --model m --seed 1",
    "python -um vllm serve m --seed 1",
    "python3 -mvllm serve m --seed 1",
    "python -W ignore -X dev /opt/venv/bin/vllm serve m --seed 1",
    "vllm serve m --seed 1 > log 2>&1 &",
    "vllm serve m --seed 1 2>&1 | tee -a log",
    "bash -eo pipefail -c 'vllm serve m --seed 1'",
    "sh -c 'sh -c \"exec vllm serve m --seed 1\"'",
    "MODEL=m; vllm serve $MODEL --seed 1",
    "pip install vllm && vllm serve m --seed 1; echo done",
    "ulimit -n 65536; cd /x; vllm serve m --seed 1",
    "docker run --entrypoint /bin/bash vllm/vllm-openai:latest -lc 'vllm serve m --seed 1'",
    "docker run --entrypoint python3 vllm/vllm-openai -m vllm.entrypoints.openai.api_server --model m --seed 1",
    "nvidia-docker run --sysctl net.core.somaxconn=1024 --oom-score-adj=-5 vllm/vllm-openai --model m --seed 1",
    "docker run --network-alias v --cpu-percent 5 --health-on-failure kill vllm/vllm-openai --model m --seed 1",
    "podman --hooks-dir /x run --preserve-fds 1 --http-proxy=false vllm/vllm-openai --model m --seed 1",
    "env -S 'vllm serve m' --seed 1",
    "env -S '-u VLLM_PORT A=1 vllm' serve m --seed 1",
    "env -u A -S'vllm serve' m --seed 1",
    "env --split-string='vllm serve m --seed' 1",
    "vllm serve m\n  --seed 1",
    "export MODEL=m; bash -c 'vllm serve $MODEL --seed 1'",
    "docker run -e MODEL=m --entrypoint sh vllm/vllm-openai -c 'exec vllm serve $MODEL --seed 1'",
    "vllm serve m \\\n  # a remark\n  --seed 1",
    "docker run nginx\ndocker run vllm/vllm-openai --model m --seed 1",
    "vllm-rs serve m --seed 1",
    "vllm.exe serve m --seed 1",
]


@pytest.mark.parametrize("text", SAME)
def test_however_it_is_started_the_engines_arguments_are_the_same(text: str) -> None:
    found = parse_command(text)
    assert (found.engine, found.model, found.args) == ("vllm", "m", ("--seed", "1"))


LEFT_OUT = {
    "sudo -E vllm serve m": "sudo -E",
    "doas -u bob vllm serve m": "doas -u bob",
    "env -u VLLM_PORT vllm serve m": "env -u VLLM_PORT",
    "env -S 'A=1 vllm serve m'": "env -S",
    "su - bob -c 'vllm serve m'": "su - bob",
    "runuser -u bob -- vllm serve m": "runuser -u bob --",
    "setpriv --reuid 1000 --clear-groups vllm serve m": "setpriv --reuid 1000 --clear-groups",
    "ip netns exec x vllm serve m": "ip netns exec x",
    "srun --gpus 1 vllm serve m": "srun --gpus 1",
    "flock /tmp/x vllm serve m": "flock /tmp/x",
    "pip install vllm && vllm serve m": "pip install vllm",
    "sh -c 'vllm serve m' -- x": "`-- x` behind the text of sh",
    "vllm serve m >> log": ">> log",
    "docker run nginx; vllm serve m": "docker run nginx",
}


@pytest.mark.parametrize("text", LEFT_OUT)
def test_what_is_left_out_is_said(text: str) -> None:
    found = parse_command(text)
    assert (found.engine, found.model, found.args) == ("vllm", "m", ())
    assert any(LEFT_OUT[text] in note for note in found.notes)


def test_a_line_that_begins_with_a_flag_belongs_to_the_one_above_it() -> None:
    """Pages lose the backslashes at the ends of lines. A flag is never the name of a program."""
    found = parse_command("vllm serve m\n  --port 1\n  -tp 2")
    assert found.args == ("--port", "1", "-tp", "2")
    assert [note.split()[5] for note in found.notes] == ["--port", "-tp"]


def test_lines_that_begin_with_a_word_or_follow_a_pipe_are_commands() -> None:
    with pytest.raises(InvalidError, match="2 commands"):
        parse_command("vllm serve a\nvllm serve b")
    with pytest.raises(InvalidError, match="only arguments were pasted"):
        parse_command("\n--port 1")


@pytest.mark.parametrize(
    "text",
    ["ssh host vllm serve m", "tmux new -d -s x 'vllm serve m'", "kubectl exec pod -- /opt/venv/bin/vllm serve m"],
)
def test_behind_a_program_that_is_not_known_the_engines_part_is_named(text: str) -> None:
    with pytest.raises(InvalidError, match="is not the program") as refused:
        parse_command(text)
    assert re.search(r"begins with `(/opt/venv/bin/)?vllm`", refused.value.hint or "")


def test_words_that_env_takes_apart_itself() -> None:
    assert parse_command("env -S 'A=1 vllm serve m' --seed 1").env == {"A": "1"}


def test_a_variable_of_this_environment_is_passed_to_a_container() -> None:
    found = parse_command('docker run -e A=1 --env "HF_TOKEN=$HF_TOKEN" vllm/vllm-openai --model m')
    assert found.env == {"A": "1"}
    assert any(note.startswith("HF_TOKEN has the value") for note in found.notes)


@pytest.mark.parametrize(
    "image",
    ["llama.cpp:server", "llama.cpp:server-cuda -s", "llama.cpp", "--entrypoint /app/llama-server llama.cpp:full"],
)
def test_images_of_llama_cpp_that_start_its_server(image: str) -> None:
    flags, _, rest = image.rpartition("llama.cpp")
    found = parse_command(f"docker run {flags}ghcr.io/ggml-org/llama.cpp{rest} -m x.gguf --port 1")
    assert (found.engine, found.model, found.args) == ("llama_cpp", "x.gguf", ("--port", "1"))


def test_the_full_image_of_llama_cpp_starts_one_of_several_programs() -> None:
    found = parse_command("docker run ghcr.io/ggml-org/llama.cpp:full --server -m x.gguf --port 1")
    assert (found.engine, found.model, found.args) == ("llama_cpp", "x.gguf", ("--port", "1"))
