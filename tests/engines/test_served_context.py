"""The context that an engine says it serves."""

import json
from typing import Any

import pytest

from garrison.engines.served_context import context_of_models, context_of_properties


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"data": [{"id": "m", "max_model_len": 4096}]}, 4096),
        ({"data": [{"id": "m", "max_model_len": 4096}, {"id": "sql", "max_model_len": None}]}, 4096),
        ({"data": [{"id": "m", "meta": {"n_ctx_train": 8192}}]}, None),  # llama.cpp: what it was trained for
        ({"data": [{"id": "m", "max_model_len": "4096"}, {"id": "n", "max_model_len": True}]}, None),
        ({"data": [{"id": "m", "max_model_len": 0}, {"id": "n", "max_model_len": -1}, 5]}, None),
        ({"data": {}}, None),
        ({}, None),
        ([], None),
    ],
)
def test_in_a_list_of_models(body: Any, expected: int | None) -> None:
    assert context_of_models(json.dumps(body).encode()) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"default_generation_settings": {"n_ctx": 2048}, "total_slots": 4}, 2048),
        ({"default_generation_settings": {"n_ctx": 0}}, None),
        ({"default_generation_settings": []}, None),
        ({}, None),
    ],
)
def test_in_properties(body: Any, expected: int | None) -> None:
    assert context_of_properties(json.dumps(body).encode()) == expected


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000])
def test_in_what_is_no_answer(body: bytes) -> None:
    assert context_of_models(body) is context_of_properties(body) is None
