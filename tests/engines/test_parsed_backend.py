"""Pasted command lines as llamactl's JSON: the forms of its API, and those that its parser breaks."""

from typing import Any

import pytest

from garrison.base.errors import InvalidError
from garrison.engines.catalogue import load
from garrison.engines.options import to_args
from garrison.engines.parsed_backend import parse_backend

SEED = "--model ISTA-DASLab/gemma-3-27b-it-GPTQ-4b-128g --tensor-parallel-size 2 --gpu-memory-utilization 0.5"
PARSED = {
    "model": "ISTA-DASLab/gemma-3-27b-it-GPTQ-4b-128g",
    "tensor_parallel_size": 2,
    "gpu_memory_utilization": 0.5,
}


@pytest.mark.parametrize(
    "text",
    [
        f"vllm serve {SEED}",
        f"/path/to/vllm serve {SEED}",
        f"serve {SEED}",
        SEED,
        "vllm serve \\\n  --model ISTA-DASLab/gemma-3-27b-it-GPTQ-4b-128g \\\n  --tensor-parallel-size=2 \\\r\n"
        "  --gpu-memory-utilization '0.5'",
        f"python -m vllm.entrypoints.openai.api_server {SEED}",
        f"python3 -X faulthandler -m vllm.entrypoints.cli.main serve {SEED}",
        f"uvx --from vllm vllm serve {SEED}",
        f"uv run --with vllm vllm serve {SEED}",
        f"sudo -E vllm serve {SEED}",
        f"env -u VLLM_PORT vllm serve {SEED}",
        f"numactl --cpunodebind=0 -m 0 vllm serve {SEED}",
        f'bash -lc "vllm serve {SEED}"',
        f"cd /srv && source .venv/bin/activate && exec vllm serve {SEED}",
        f"ann@box:~/models$ vllm serve {SEED}",
        f"[Unit]\nDescription=x\n\n[Service]\nExecStart=/usr/bin/vllm serve \\\n {SEED}\nRestart=always\n",
        'command: "vllm serve --model ISTA-DASLab/gemma-3-27b-it-GPTQ-4b-128g -tp 2 --gpu-memory-utilization 0.5"',
        "command:\n  - vllm\n  - serve\n  - ISTA-DASLab/gemma-3-27b-it-GPTQ-4b-128g\n  - -tp\n  - 2\n"
        "  - --gpu-memory-utilization\n  - 0.5\n",
    ],
)
def test_the_forms_of_one_command(text: str) -> None:
    found = parse_backend(text, "vllm")
    assert (found.backend_type, found.backend_options) == ("vllm", PARSED)
    assert not found.docker_enabled
    assert found.to_json() == {"backend_type": "vllm", "backend_options": PARSED}


@pytest.mark.parametrize(
    ("text", "options", "env"),
    [
        (f"docker run --rm --gpus all -e HF_TOKEN=x vllm/vllm-openai {SEED}", PARSED, {"HF_TOKEN": "x"}),
        (f"podman --runtime runc run -v /m:/m vllm/vllm-openai:v0.32.0 {SEED}", PARSED, {}),
        (
            'docker run --entrypoint /bin/bash vllm/vllm-openai:latest -c "vllm serve x/y --port 8000"',
            {"model": "x/y", "port": 8000},
            {},
        ),
        (
            "services:\n  llm:\n    image: vllm/vllm-openai:latest\n    environment:\n      - A=b c\n"
            "    command: --model m --max-model-len 100\n",
            {"model": "m", "max_model_len": "100"},
            {"A": "b c"},
        ),
        (
            "containers:\n- name: llm\n  image: vllm/vllm-openai\n  args: ['--model', m]\n  env:\n"
            "  - {name: A, value: b}\n  - {name: S, valueFrom: {secretKeyRef: {name: x, key: y}}}\n",
            {"model": "m"},
            {"A": "b"},
        ),
    ],
)
def test_containers(text: str, options: dict[str, Any], env: dict[str, str]) -> None:
    found = parse_backend(text, "vllm")
    assert found.docker_enabled
    assert {name: str(value) for name, value in found.backend_options.items()} == {
        name: str(value) for name, value in options.items()
    }
    assert found.environment == env
    assert any("image" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "backend", "options"),
    [
        ("""vllm serve m --compilation-config '{"mode": 3}'""", "vllm", {"compilation_config": {"mode": 3}}),
        ("vllm serve m --revision 1234", "vllm", {"revision": "1234"}),
        ("vllm serve m --lora-modules a=b", "vllm", {"lora_modules": ["a=b"]}),
        ("vllm serve m -tp 2", "vllm", {"tensor_parallel_size": 2}),
        ("vllm serve m --served-model-name foo bar", "vllm", {"served_model_name": ["foo", "bar"]}),
        ("vllm serve m --enable-prefix-caching false", "vllm", {"enable_prefix_caching": False}),
        ("vllm serve m --enable-prefix-caching=true", "vllm", {"enable_prefix_caching": True}),
        ("vllm serve m --no-enable-prefix-caching", "vllm", {"enable_prefix_caching": False}),
        ("CUDA_VISIBLE_DEVICES=0 vllm serve m", "vllm", {}),
        ("vllm serve m --new-flag value", "vllm", {"extra_args": {"--new-flag": "value"}}),
        ("llama-server -m m -ngl -1", "llama-cpp", {"gpu_layers": -1}),
        ("llama-server -m m -ngl all", "llama-cpp", {"gpu_layers": "all"}),
        ("llama-server -m m --n-gpu-layers 99 --temp 0", "llama_cpp", {"gpu_layers": 99, "temp": 0}),
        ("llama-server -m m --reasoning-budget -1", "llama-cpp", {"reasoning_budget": -1}),
        ("mlx_lm.server --model m --port 8080", "mlx", {"port": 8080}),
        ("--model m --temp 0.0", "mlx", {"temp": 0.0}),
    ],
)
def test_what_llamactl_gets_wrong(text: str, backend: str, options: dict[str, Any]) -> None:
    found = parse_backend(text, backend)
    assert found.backend_options == {"model": "m", **options}
    again = to_args(found.backend_options, load(found.backend_type))
    assert parse_backend(" ".join(f"'{word}'" for word in ("--model", "m", *again)), backend).backend_options == (
        found.backend_options
    )


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("vllm serve m --new-flag v", "does not list --new-flag"),
        ("vllm serve m --disable-log-requests", "did you mean --no-enable-log-requests"),
        ("vllm serve m —port 1", "'—port' belongs to no option"),
        ("vllm serve m --enable-prefix-caching false", "--enable-prefix-caching takes no value"),
        ("taskset -c 0-3 vllm serve m", "`taskset -c 0-3` was left out"),
        ("vllm serve --port 1", "names no model"),
        ("docker run -p 1:1 vllm/vllm-openai m", "published port"),
    ],
)
def test_what_is_said_about_it(text: str, note: str) -> None:
    assert any(note in one for one in parse_backend(text).notes), parse_backend(text).notes


@pytest.mark.parametrize(
    ("text", "backend", "said"),
    [
        ("", "vllm", "empty"),
        ("   ", None, "empty"),
        ("vllm serve 'm", "vllm", "not closed"),
        ("vllm serve m ---x", "vllm", "three dashes"),
        ("llama-server -m x", "vllm", "starts llama_cpp, not vllm"),
        ("vllm serve m", "mlx", "starts vllm, not mlx_lm"),
        ("docker run -it vllm/vllm-openai:latest bash", "vllm", "starts a shell"),
        ('sh -c \'sh -c "sh -c \\"sh -c vllm\\""\'', None, "starts a shell"),
        ("vllm serve m", "triton", "no engine"),
        ("python train.py", "custom", "not a known engine"),
    ],
)
def test_what_is_refused(text: str, backend: str | None, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        parse_backend(text, backend)


def test_secrets_of_launchers_are_in_no_note() -> None:
    found = parse_backend("systemd-run -E HF_TOKEN=hf_abcdefghijklmnopqrstuv vllm serve m")
    assert not any("hf_abcdefg" in note for note in found.notes)
    assert "hf_abcdefg" not in repr(parse_backend("HF_TOKEN=hf_abcdefghijklmnopqrstuv vllm serve m"))


def test_the_model_may_stand_in_the_config_file_of_vllm() -> None:
    assert parse_backend("vllm serve --config x.yaml").notes == ()
