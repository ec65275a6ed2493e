"""When llama-server is a router, and what it tells of its models."""

import json
from typing import Any

import pytest

from garrison.engines.llama_router import (
    MOST_MODELS,
    RouterModel,
    is_router,
    models_of,
)

ROUTERS: dict[str, tuple[dict[str, Any], bool]] = {
    "a preset": ({}, True),
    "a preset and further options": ({"ctx_size": 512, "models_max": 2}, True),
    "a preset file": ({"models_preset": "/p.ini"}, False),
    "a directory": ({"models_dir": "/models"}, False),
    "with dashes": ({"models-dir": "/models"}, False),
    "as a flag": ({"extra_args": {"--models-dir": "/models"}}, False),
    "a model that is not given": ({"model": "", "hf_repo": None, "models_dir": "/models"}, False),
}
OTHERS: dict[str, tuple[dict[str, Any], bool]] = {
    "nothing": ({}, False),
    "a model": ({"model": "m"}, False),
    "a model and a preset": ({"model": "m"}, True),
    "a repository": ({"hf_repo": "org/name", "models_dir": "/models"}, False),
    "a repository, as a flag": ({"extra_args": {"-hf": "org/name"}}, True),
    "a URL": ({"model_url": "http://x/m.gguf"}, True),
    "an empty directory": ({"models_dir": ""}, False),
    "extra arguments that are none": ({"extra_args": None}, False),
}


@pytest.mark.parametrize(("options", "preset"), ROUTERS.values(), ids=ROUTERS)
def test_a_router(options: dict[str, Any], preset: bool) -> None:
    assert is_router("llama_cpp", options, preset=preset)
    assert not is_router("vllm", options, preset=preset)


@pytest.mark.parametrize(("options", "preset"), OTHERS.values(), ids=OTHERS)
def test_no_router(options: dict[str, Any], preset: bool) -> None:
    assert not is_router("llama_cpp", options, preset=preset)


def test_the_models_in_an_answer() -> None:
    data = [
        {"id": "one", "status": {"value": "loaded", "args": ["llama-server"]}},
        {"id": "org/two", "status": {"value": "unloaded", "exit_code": 1, "failed": True, "error": "why"}},
        {"id": "three", "status": {"value": "sleeping"}},
        {"id": "four", "status": {"value": "something new"}},
        {"id": "five"},
        {"id": "one", "status": {"value": "unloaded"}},
    ]
    found = models_of(json.dumps({"data": data}).encode())
    assert found is not None
    assert {one.id: one.status for one in found} == {
        "one": "loaded", "org/two": "failed", "three": "sleeping", "four": "unloaded", "five": "unloaded",
    }  # fmt: skip
    assert found[1] == RouterModel("org/two", "failed", (), 1, "why")
    assert models_of([one.to_json() for one in found]) == found
    aliased = models_of([{"id": "a", "aliases": ["b", 1], "status": {"value": "loaded"}}])
    assert aliased == (RouterModel("a", "loaded", ("b",)),)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"data": {}}', b"1", b"null", b"[" * 100_000, b"\xff"]
)
def test_other_answers_say_nothing(body: bytes) -> None:
    assert models_of(body) is None


def test_names_that_cannot_be_used_are_left_out_and_so_is_what_is_too_much() -> None:
    odd = [None, 1, {}, {"id": 1}, {"id": ""}, {"id": "a\nb"}, {"id": "x" * 201}, {"id": "\x1b[2J"}]
    assert models_of(odd) == ()
    assert models_of([{"id": f"m{number}"} for number in range(MOST_MODELS + 5)]) == tuple(
        RouterModel(f"m{number}") for number in range(MOST_MODELS)
    )
