"""`options` of Ollama's requests, and the context that a client counts on."""

from typing import Any

import pytest

from garrison.base.errors import InvalidError
from garrison.gateway.ollama.translation.options import check_context, read_options


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"temperature": 0.2, "top_p": 1, "min_p": 0.05}, {"temperature": 0.2, "top_p": 1, "min_p": 0.05}),
        ({"top_k": 40.0, "seed": -1}, {"top_k": 40, "seed": -1}),
        ({"repeat_penalty": 1.1}, {"repetition_penalty": 1.1, "repeat_penalty": 1.1}),
        ({"repeat_last_n": 64, "typical_p": 0.7, "num_keep": 5}, {"repeat_last_n": 64, "typical_p": 0.7, "n_keep": 5}),
        ({"presence_penalty": 1, "frequency_penalty": 0.5}, {"presence_penalty": 1, "frequency_penalty": 0.5}),
        ({"mirostat": 1, "mirostat_tau": 5.0, "mirostat_eta": 0.1},
         {"mirostat": 1, "mirostat_tau": 5.0, "mirostat_eta": 0.1}),
        ({"num_predict": 100}, {"max_tokens": 100}),
        ({"num_predict": -1}, {}),
        ({"num_predict": -2}, {}),
        ({"num_predict": 0}, {}),
        ({"stop": ["\n", "user:"]}, {"stop": ["\n", "user:"]}),
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"temperature": None, "stop": None}, {}),
        ({"num_gpu": 99, "num_batch": 2, "use_mmap": True, "num_thread": 8, "main_gpu": 0, "unheard_of": "x"}, {}),
    ],
)  # fmt: skip
def test_what_an_engine_is_told(given: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    found = read_options(given)
    assert found.parameters == expected
    assert found.num_ctx is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"temperature": "0.7"}, "'temperature' must be a number, not '0.7'"),
        ({"top_k": "40"}, "'top_k' must be an integer"),
        ({"seed": True}, "'seed' must be an integer"),
        ({"num_ctx": "4096"}, "'num_ctx' must be an integer"),
        ({"stop": [1]}, "'stop' must be a list of strings"),
        ({"stop": {}}, "'stop' must be a list of strings"),
    ],
)
def test_wrong_types_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        read_options(given)


@pytest.mark.parametrize(("given", "expected"), [(4096, 4096), (4096.0, 4096), (0, None), (-1, None), (None, None)])
def test_the_context_is_for_nobody_but_us(given: Any, expected: int | None) -> None:
    found = read_options({"num_ctx": given})
    assert found.num_ctx == expected
    assert found.parameters == {}


@pytest.mark.parametrize(("asked", "served"), [(None, 4096), (4096, 4096), (1, 4096), (999_999, None), (None, None)])
def test_a_context_that_is_served(asked: int | None, served: int | None) -> None:
    check_context("m", asked, served)


def test_a_longer_one_is_refused_with_the_one_that_is_served() -> None:
    with pytest.raises(InvalidError) as caught:
        check_context("qwen:latest", 8193, 8192)
    assert caught.value.message == "num_ctx is 8193, but 'qwen:latest' is served with a context of 8192 tokens"
    assert caught.value.http_status == 400
