"""The server of Ollama's API in the loop of the test, which is uvloop's, as in its process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest_asyncio
import uvloop
from ollama_lab import OllamaLab


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[OllamaLab]:
    """A server that listens, before a gateway that serves `qwen` and `route`."""
    made = OllamaLab()
    await made.start(max_body_bytes=100_000, origins=("https://chat.example.com",), hosts=("models.example.com",))
    try:
        yield made
    finally:
        await made.close()
