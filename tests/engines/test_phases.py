from collections.abc import Callable

import pytest

from garrison.engines.phases import PHASES, PhaseSign, is_fatal, phase_of


def signs(engine: str, lines: list[str]) -> list[PhaseSign]:
    return [sign for line in lines if (sign := phase_of(engine, line)) is not None]


def test_a_start_of_vllm_with_compilation(log_of: Callable[[str], list[str]]) -> None:
    assert signs("vllm", log_of("vllm-ready")) == [
        PhaseSign("weights"),
        PhaseSign("weights", fraction=0.0),
        PhaseSign("weights", finished=True, fraction=1.0),
        PhaseSign("weights", finished=True, seconds=0.01),
        PhaseSign("compile"),
        PhaseSign("compile", finished=True),
        PhaseSign("warm-up", seconds=0.04),
        PhaseSign("warm-up", finished=True),
        PhaseSign("kv-cache", memory_gib=1.0),
        PhaseSign("kv-cache", finished=True),
        PhaseSign("warm-up", finished=True, seconds=30.41),
        PhaseSign("ready", finished=True),
    ]


def test_a_start_of_llama_server(log_of: Callable[[str], list[str]]) -> None:
    assert [sign.phase for sign in signs("llama_cpp", log_of("llama-ready"))] == ["weights", "kv-cache", "ready"]


def test_a_start_of_mlx_lm(log_of: Callable[[str], list[str]]) -> None:
    assert [sign.phase for sign in signs("mlx_lm", log_of("mlx-ready"))] == ["ready"]


# Lines that only a GPU or a hub brings; their form is that of vLLM 0.32's source.
@pytest.mark.parametrize(
    ("line", "sign"),
    [
        ("Time spent downloading weights for org/m: 12.340000 seconds", PhaseSign("download", True, 12.34)),
        ("Model loading took 14.99 GiB memory and 3.2 seconds", PhaseSign("weights", True, 3.2, 14.99)),
        ("Dynamo bytecode transform time: 4.25 s", PhaseSign("compile", seconds=4.25)),
        ("torch.compile took 20.10 s in total", PhaseSign("compile", True, 20.1)),
        (
            "torch.compile and initial profiling/warmup run together took 9.00 s in total",
            PhaseSign("compile", True, 9.0),
        ),
        ("Available KV cache memory: 51.3 GiB", PhaseSign("kv-cache", memory_gib=51.3)),
        ("GPU KV cache size: 1,048,576 tokens", PhaseSign("kv-cache", True)),
        ("Capturing CUDA graphs (mixed, PIECEWISE):  50%|█", PhaseSign("warm-up", fraction=0.5)),
        ("Graph capturing finished in 3 secs, took 0.45 GiB", PhaseSign("warm-up", True, 3.0, 0.45)),
        ("an ordinary line", None),
    ],
)
def test_lines(line: str, sign: PhaseSign | None) -> None:
    assert phase_of("vllm", f"(Worker pid=1) INFO 11-20 20:11:15 [x.py:1] {line}") == sign


@pytest.mark.parametrize("name", ["vllm-port-taken", "vllm-missing-model", "vllm-too-long", "vllm-unknown-flag"])
def test_a_start_that_failed_was_never_ready(name: str, log_of: Callable[[str], list[str]]) -> None:
    assert "ready" not in {sign.phase for sign in signs("vllm", log_of(name))}
    assert {sign.phase for sign in signs("vllm", log_of(name))} <= set(PHASES)


@pytest.mark.parametrize(("name", "fatal"), [("mlx-missing", True), ("mlx-port-taken", True), ("mlx-ready", False)])
def test_mlx_lm_lives_on_without_a_port_or_a_model(name: str, fatal: bool, log_of: Callable[[str], list[str]]) -> None:
    assert any(is_fatal("mlx_lm", line) for line in log_of(name)) is fatal


def test_the_others_end_by_themselves(log_of: Callable[[str], list[str]]) -> None:
    assert not any(is_fatal("vllm", line) for line in log_of("vllm-port-taken"))
