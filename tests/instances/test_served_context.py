"""Asking an engine which context it serves."""

from typing import Any

import pytest
from canned import StartCanned, canned

from garrison.instances.runner import Upstream
from garrison.instances.served_context import served_context
from garrison.net.client import HttpDialer

__all__ = ["canned"]

LISTED = {"data": [{"id": "m", "max_model_len": 4096}]}


@pytest.mark.parametrize(
    ("engine", "path", "answer", "expected"),
    [
        ("vllm", "/v1/models", LISTED, 4096),
        ("custom", "/v1/models", {"data": []}, None),
        ("llama_cpp", "/props", {"default_generation_settings": {"n_ctx": 512}}, 512),
        ("vllm", "/v1/models", (500, LISTED), None),
        ("vllm", "/v1/models", None, None),
    ],
)
async def test_what_it_answers(canned: StartCanned, engine: str, path: str, answer: Any, expected: int | None) -> None:
    server = await canned(lambda asked, _: answer if asked == path else 404)
    assert await served_context(engine, Upstream(server.url, "secret"), HttpDialer()) == expected
    assert "authorization: Bearer secret" in server.heads[0]
    assert server.paths == [path]


async def test_one_that_has_gone() -> None:
    assert await served_context("vllm", Upstream("http://127.0.0.1:1"), HttpDialer()) is None
