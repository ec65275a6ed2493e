import pytest

from garrison.base.errors import InvalidError
from garrison.engines.parse.command import parse_command

VLLM = (
    "docker run --runtime nvidia --gpus all -v ~/.cache/huggingface:/root/.cache/huggingface "
    '--env "HF_TOKEN=x" -p 8000:8000 --ipc=host --rm -it vllm/vllm-openai:v0.32.0 --model org/m --max-model-len 32k'
)


def test_a_documented_vllm_container() -> None:
    parsed = parse_command(VLLM)
    assert (parsed.engine, parsed.model, parsed.args) == ("vllm", "org/m", ("--max-model-len", "32k"))
    assert parsed.env == {"HF_TOKEN": "x"}
    assert parsed.container is not None
    assert parsed.container.image == "vllm/vllm-openai:v0.32.0"
    assert parsed.container.values("--gpus") == ("all",)
    assert parsed.container.values("--ipc") == ("host",)
    assert parsed.argv[:2] == ("docker", "run")
    assert any("8000:8000" in note for note in parsed.notes)
    assert any("/root/.cache/huggingface" in note for note in parsed.notes)


@pytest.mark.parametrize(
    ("text", "engine", "model", "args"),
    [
        ("podman run registry.example/org/llama.cpp:server -m /models/x.gguf -c 0", "llama_cpp", "/models/x.gguf",
         ("-c", "0")),
        ("docker run -d -p8000:8000 -eA=1 vllm/vllm-openai org/m --port 1", "vllm", "org/m", ("--port", "1")),
        ("docker run --entrypoint vllm acme/own:1 serve org/m", "vllm", "org/m", ()),
        ("docker run acme/own@sha256:ab vllm serve org/m", "vllm", "org/m", ()),
    ],
)  # fmt: skip
def test_images(text: str, engine: str, model: str, args: tuple[str, ...]) -> None:
    parsed = parse_command(text)
    assert (parsed.engine, parsed.model, parsed.args) == (engine, model, args)


def test_values_that_are_glued_to_a_letter() -> None:
    parsed = parse_command("docker run -it -p8000:8000 -eA=1 vllm/vllm-openai org/m")
    assert parsed.env == {"A": "1"}
    assert parsed.container is not None
    assert parsed.container.values("--publish") == ("8000:8000",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("docker run --frobnicate x vllm/vllm-openai --model m", "unknown docker option --frobnicate"),
        ("docker exec c vllm serve m", "only `docker run`"),
        ("docker run acme/own:1", "belongs to no known engine"),
        ("docker run acme/own:1 ls", "'ls' is not the program"),
        ("docker run -v", "needs a value"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        parse_command(text)
