"""Ollama's own client library on real engines, through a server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
from server_lab import ServerLab, free_port
from tiny_model import make_gguf

pytestmark = [pytest.mark.engine("vllm"), pytest.mark.engine("llama_cpp"), pytest.mark.engine("mlx_lm")]

Home = Callable[[str], dict[str, str]]
PROMPT = "Hello there, tell me about the weather in the mountains today, please."
"""Long on purpose: on a CPU with AMX, a first prompt of four tokens kills vLLM 0.32."""
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
EVERYTHING = {
    "num_predict": 6, "temperature": 0, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "typical_p": 0.9, "seed": 7,
    "stop": ["zzz"], "repeat_penalty": 1.1, "repeat_last_n": 16, "presence_penalty": 0.1, "frequency_penalty": 0.1,
    "num_keep": 4, "num_gpu": 0, "num_thread": 2,
}  # fmt: skip
CONTEXTS = {"vllm": 512, "llama_cpp": 512, "mlx_lm": None}
_START_SECONDS = 240


@pytest.fixture
def client(home_with: Home, tmp_path: Path, tiny_model: Path) -> Iterator[Callable[[str], ollama.Client]]:
    """`client(engine)`: of a server with the instance `m` on that engine."""
    labs: list[ServerLab] = []
    clients: list[ollama.Client] = []

    def make(engine: str) -> ollama.Client:
        options: dict[str, dict[str, Any]] = {
            "vllm": {"model": str(tiny_model), "enforce_eager": True, "dtype": "bfloat16", "max_model_len": 512},
            "llama_cpp": {"model": str(make_gguf(tmp_path / "tiny.gguf")), "ctx-size": 1024, "parallel": 2},
            "mlx_lm": {"model": str(tiny_model)},
        }
        port = free_port()
        more = {"on_demand_start_timeout": str(_START_SECONDS), "gateway_ollama_port": str(port)}
        (tmp_path / "lab").mkdir()
        labs.append(ServerLab(tmp_path / "lab", home_with(engine), **more))
        source = Path(home_with(engine)["GARRISON_DATA_DIR"], "engines", engine).resolve()
        (labs[-1].data_dir / "engines").mkdir(parents=True)
        (labs[-1].data_dir / "engines" / engine).symlink_to(source)
        labs[-1].start()
        labs[-1].create("m", tiny_model, engine, backend_options=options[engine])
        clients.append(ollama.Client(f"http://127.0.0.1:{port}", trust_env=False, timeout=_START_SECONDS))
        return clients[-1]

    yield make
    for one in clients:
        one.close()
    for lab in labs:
        lab.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", CONTEXTS)
def test_an_engine(client: Callable[[str], ollama.Client], engine: str) -> None:
    ask = client(engine)
    assert ask.generate("m").done_reason == "load"
    whole = ask.chat("m:latest", messages=MESSAGES, options=EVERYTHING)
    assert whole.message.content
    assert whole.eval_count == 6
    assert whole.prompt_eval_count
    *parts, last = ask.chat("m", messages=MESSAGES, options=EVERYTHING, stream=True, think=False)
    assert "".join(one.message.content for one in parts) == whole.message.content
    assert (last.eval_count, last.prompt_eval_count) == (6, whole.prompt_eval_count)
    assert 0 < last.eval_duration <= last.total_duration
    assert ask.generate("m", PROMPT, options=EVERYTHING).response
    raw = ask.generate("m", PROMPT, raw=True, options={"seed": 7} if CONTEXTS[engine] else EVERYTHING)
    assert raw.eval_count > 16 or not CONTEXTS[engine], "the model never ends, so its context does"
    context = CONTEXTS[engine]
    assert next(one.context_length for one in ask.ps().models) == (context or 0)
    if context is not None:
        with pytest.raises(ollama.ResponseError, match=f"with a context of {context} tokens"):
            ask.chat("m", messages=MESSAGES, options={"num_ctx": context + 1})
        with pytest.raises(ollama.ResponseError) as caught:
            ask.chat("m", messages=[{"role": "user", "content": PROMPT * 200}], options=EVERYTHING)
        assert caught.value.status_code == 400
    assert ask.generate("m", keep_alive=0).done_reason == "unload"
    assert ask.ps().models == []
