import io
import json

import pytest


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "vllm serve --model ISTA-DASLab/gemma-3-27b-it-GPTQ-4b-128g --tensor-parallel-size 2",
            {"backend_type": "vllm",
             "backend_options": {"model": "ISTA-DASLab/gemma-3-27b-it-GPTQ-4b-128g", "tensor_parallel_size": 2}},
        ),
        (
            "CUDA_VISIBLE_DEVICES=0 llama-server -m /m/x.gguf -ngl -1",
            {"backend_type": "llama_cpp", "backend_options": {"model": "/m/x.gguf", "gpu_layers": -1},
             "environment": {"CUDA_VISIBLE_DEVICES": "0"}},
        ),
        ("mlx_lm.server --model X --temp 0.0",
         {"backend_type": "mlx_lm", "backend_options": {"model": "X", "temp": 0.0}}),
        ("docker run --gpus all vllm/vllm-openai --model m",
         {"backend_type": "vllm", "backend_options": {"model": "m"}, "docker_enabled": True}),
    ],
)  # fmt: skip
def test_a_command_line_becomes_options(cli, line, expected):
    done = cli("parse", line)
    assert done.code == 0, done.err
    assert json.loads(done.out) == expected


def test_it_reads_words_after_two_dashes_and_standard_input(cli, monkeypatch):
    assert json.loads(cli("parse", "--", "vllm", "serve", "a b").out)["backend_options"] == {"model": "a b"}
    monkeypatch.setattr("sys.stdin", io.StringIO("--model m --seed 0"))
    done = cli("parse", "-", "--engine", "vllm")
    assert json.loads(done.out)["backend_options"] == {"model": "m", "seed": 0}


def test_an_unknown_option_is_kept_with_a_warning(cli):
    done = cli("parse", "vllm serve m --max-modle-len 5")
    assert json.loads(done.out)["backend_options"] == {"model": "m", "extra_args": {"--max-modle-len": "5"}}
    assert "--max-model-len" in done.err


@pytest.mark.parametrize(
    ("arguments", "code"), [((), 64), (("vllm serve 'x",), 1), (("nonsense",), 1), (("vllm serve $M",), 1), (("",), 1)]
)
def test_what_cannot_be_parsed(cli, arguments, code):
    done = cli("parse", *arguments)
    assert done.code == code
    assert done.err.startswith("error: ")
