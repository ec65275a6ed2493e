"""Garrison's judgement of an adapter against its base is that of the engine which reads it.

Each engine is also asked alone. llama.cpp and mlx-lm refuse what Garrison refuses. vLLM loads an adapter of the wrong
shape, answers 200 and serves another one than was trained; the tests say which.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine_adapters as makers
import httpx2
import numpy as np
import pytest
import tiny_model
from serve_command import QUICK, free_port, garrison, served

Home = Callable[[str], dict[str, str]]
MODEL_INVALID = 11
TRAINED = makers.pairs()
NARROW = makers.pairs(width=32)
BEYOND = makers.pairs(layers=(0, 9))


def refused(env: dict[str, str], engine: str, model: Path, adapter: Path, *words: str) -> None:
    """`serve` ends before a start, by the code for files that are no good, and says what to do."""
    arguments = ("--engine", engine, "--adapter", f"sql={adapter}", "--port", str(free_port()))
    done = garrison(env, "serve", str(model), *arguments, seconds=60)
    assert done.returncode == MODEL_INVALID, done.stderr
    said = " ".join(done.stderr.split())
    assert all(word in said for word in words), said
    assert "→" in said
    assert "starting" not in said


def post(url: str, path: str, **body: Any) -> httpx2.Response:
    return httpx2.post(f"{url}{path}", json=body, timeout=60, trust_env=False)


def text(url: str, model: str, **extra: Any) -> str:
    answer = post(url, "/v1/completions", model=model, prompt="Hello", max_tokens=12, temperature=0, **extra)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def alone(env: dict[str, str], engine: str, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The engine's own program, which is to end by itself."""
    (found,) = Path(env["GARRISON_DATA_DIR"], "engines", engine).glob(f"*/bin/{program}")
    command = [str(found), *arguments]
    return subprocess.run(
        command, env=env | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=60, check=False
    )


VLLM_REFUSES: dict[str, tuple[dict[str, Any], str, str]] = {
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save: lm_head", "modules_to_save"),
    "DoRA": ({"use_dora": True}, "use_dora", "DoRA"),
}


@pytest.mark.engine("vllm")
@pytest.mark.timeout(300)
def test_vllm(home_with: Home, tmp_path: Path, tiny_model: Path) -> None:
    env = home_with("vllm")
    fitting = {
        "fits": makers.peft(tmp_path / "fits", TRAINED),
        "rank-one": makers.peft(tmp_path / "rank-one", makers.pairs(rank=1)),
        "one-layer": makers.peft(tmp_path / "one-layer", makers.pairs(layers=(1,))),
        "rslora": makers.peft(tmp_path / "rslora", TRAINED, use_rslora=True),
        "bare-names": makers.peft(tmp_path / "bare-names", TRAINED, prefix="model.layers"),
    }
    narrow, beyond = makers.peft(tmp_path / "narrow", NARROW), makers.peft(tmp_path / "beyond", BEYOND)
    refused(env, "vllm", tiny_model, narrow, "does not fit the model", "has 32 inputs, and the base model has 64")
    nested = makers.peft(tmp_path / "nested", TRAINED, prefix="base_model.model.model.language_model.layers")
    refused(env, "vllm", tiny_model, nested, "does not fit the model", "is a module of a multimodal model")
    refused(env, "vllm", tiny_model, beyond, "does not fit the model", "layer 9, and the base model has 2 layers")
    others = {name: makers.peft(tmp_path / name, TRAINED, **config) for name, (config, *_) in VLLM_REFUSES.items()}
    for name, path in others.items():
        refused(env, "vllm", tiny_model, path, "vLLM does not load", VLLM_REFUSES[name][1], "merge_and_unload")
    adapters = [word for name, path in fitting.items() for word in ("--adapter", f"{name}={path}")]
    flags = ("--runtime-lora", "--max-loras", "2", "--", *QUICK)
    with served(env, tmp_path / "log", str(tiny_model), *adapters, *flags) as (url, _):
        answers = {name: text(url, name) for name in ("tiny", *fitting)}
        assert answers["bare-names"] == answers["fits"]
        assert len(set(answers.values())) == len(answers) - 1, answers
        for name, path in others.items():
            answer = post(url, "/v1/load_lora_adapter", lora_name=name, lora_path=str(path))
            assert answer.status_code == 500
            assert VLLM_REFUSES[name][2] in answer.text
        padded = {name: (np.pad(a, ((0, 0), (0, 32))), b) for name, (a, b) in NARROW.items()}
        served_instead = {
            narrow: makers.peft(tmp_path / "padded", padded),
            beyond: makers.peft(tmp_path / "cut", makers.pairs(layers=(0,))),
        }
        for path in (nested, *served_instead, *served_instead.values()):
            loaded = post(url, "/v1/load_lora_adapter", lora_name=path.name, lora_path=str(path))
            assert loaded.status_code == 200, loaded.text
        assert text(url, nested.name) == answers["tiny"]
        for path, instead in served_instead.items():
            assert text(url, path.name) == text(url, instead.name) != answers["tiny"]


@pytest.mark.engine("llama_cpp")
@pytest.mark.timeout(120)
def test_llama_cpp(home_with: Home, tmp_path: Path) -> None:
    env = home_with("llama_cpp")
    model = tiny_model.make_gguf(tmp_path / "tiny.gguf")
    misfits = {
        "32 inputs, and the base model has 64": (makers.gguf(tmp_path / "narrow.gguf", NARROW), "incorrect shape"),
        "layer 9, and the base model has 2": (makers.gguf(tmp_path / "beyond.gguf", BEYOND), "does not exist in base"),
        "the architecture qwen2": (makers.gguf(tmp_path / "q.gguf", TRAINED, architecture="qwen2"), "arch mismatch"),
    }
    for ours, (path, theirs) in misfits.items():
        refused(env, "llama_cpp", model, path, "does not fit the model", ours)
        done = alone(env, "llama_cpp", "llama-server", "-m", str(model), "--lora", str(path), "--port", "0")
        assert done.returncode != 0
        assert theirs in done.stdout + done.stderr
    fitting = {
        "fits": makers.gguf(tmp_path / "fits.gguf", TRAINED),
        "rank-one": makers.gguf(tmp_path / "rank-one.gguf", makers.pairs(rank=1)),
        "one-layer": makers.gguf(tmp_path / "one-layer.gguf", makers.pairs(layers=(1,))),
    }
    adapters = [word for name, path in fitting.items() for word in ("--adapter", f"{name}={path}")]
    with served(env, tmp_path / "log", str(model), "--engine", "llama_cpp", *adapters) as (url, _):
        loaded = httpx2.get(f"{url}/lora-adapters", timeout=10, trust_env=False).json()
        assert {Path(one["path"]).name for one in loaded} == {path.name for path in fitting.values()}
        answers = [text(url, "tiny", lora=[{"id": one["id"], "scale": 1.0}]) for one in loaded]
        without = text(url, "tiny", lora=[{"id": one["id"], "scale": 0.0} for one in loaded])
        assert len({without, *answers}) == len(fitting) + 1


@pytest.mark.engine("mlx_lm")
@pytest.mark.timeout(240)
def test_mlx_lm(home_with: Home, tmp_path: Path, tiny_model: Path) -> None:
    env = home_with("mlx_lm")
    queries = ["self_attn.q_proj"]
    misfits = {
        "32 inputs, and the base model has 64": (makers.mlx(tmp_path / "narrow", NARROW), "does not match"),
        "layer 9, and the base model has 2": (makers.mlx(tmp_path / "beyond", BEYOND), "not an adapter parameter"),
        "mlx-lm adapts the last 1 layer": (makers.mlx(tmp_path / "few", TRAINED, num_layers=1), "not an adapter"),
        "not among lora_parameters.keys": (makers.mlx(tmp_path / "keys", TRAINED, keys=queries), "not an adapter"),
    }
    generate = ("--model", str(tiny_model), "--prompt", "Hello", "--max-tokens", "12", "--temp", "0", "--adapter-path")
    for ours, (path, theirs) in misfits.items():
        refused(env, "mlx_lm", tiny_model, path, ours)
        done = alone(env, "mlx_lm", "mlx_lm.generate", *generate, str(path))
        assert done.returncode != 0
        assert theirs in done.stderr
    named = ["self_attn.q_proj", "self_attn.v_proj"]
    fitting = [
        makers.mlx(tmp_path / "fits", TRAINED),
        makers.mlx(tmp_path / "rank-one", makers.pairs(rank=1)),
        makers.mlx(tmp_path / "last-layer", makers.pairs(layers=(1,)), num_layers=1),
        makers.mlx(tmp_path / "every-layer", makers.pairs(seed=2), num_layers=-1, keys=named),
        makers.mlx(tmp_path / "more-layers", makers.pairs(seed=3), num_layers=16),
    ]
    words = (str(tiny_model), "--engine", "mlx_lm")
    with served(env, tmp_path / "log", *words) as (url, _):
        answers = {text(url, "default_model")}
    for path in fitting:
        with served(env, tmp_path / f"{path.name}.log", *words, "--adapter", f"sql={path}") as (url, _):
            answers.add(text(url, "default_model"))
    assert len(answers) == len(fitting) + 1
