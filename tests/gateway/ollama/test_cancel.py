"""The client goes away: whatever its request was doing ends, and the gateway sees that within 100 ms."""

from collections.abc import Callable

import pytest
from gateway_lab import Client, Message
from ollama_lab import OllamaLab, Unfinished, answer, events, post

CHAT = {"model": "qwen", "messages": [{"role": "user", "content": "hi"}]}
WORD = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
GONE: dict[str, Callable[[Client], None]] = {"closed": Client.close, "reset": Client.reset}
_SOON = 0.1


@pytest.fixture(params=GONE.values(), ids=GONE.keys())
def go(request: pytest.FixtureRequest) -> Callable[[Client], None]:
    return request.param


async def test_before_the_head_of_the_answer(lab: OllamaLab, go: Callable[[Client], None]) -> None:
    lab.decide = lambda _: Unfinished(b"")
    for body in (CHAT, {**CHAT, "stream": False}, {"model": "qwen"}):
        client, before = await lab.client(), len(lab.gateway.ended_at)
        client.send(post("/api/chat", body))
        await lab.until(lambda: _waits(lab))
        go(client)
        await lab.until(lambda before=before: len(lab.gateway.ended_at) > before, _SOON)
        lab.gateway.requests.clear()


async def test_in_a_stream(lab: OllamaLab, go: Callable[[Client], None]) -> None:
    lab.decide = lambda _: Unfinished(events(WORD, last=b""))
    for path in ("/api/chat", "/v1/chat/completions"):
        client, before = await lab.client(), len(lab.gateway.ended_at)
        client.send(post(path, CHAT))
        await client.reader.readuntil(b'"a"')
        go(client)
        await lab.until(lambda before=before: len(lab.gateway.ended_at) > before, _SOON)


async def test_while_it_waits_for_an_unload(lab: OllamaLab, go: Callable[[Client], None]) -> None:
    def decide(message: Message) -> bytes:
        return Unfinished(b"") if b"/models/unload" in message.start else answer({})

    lab.decide = decide
    client = await lab.client()
    client.send(post("/api/generate", {"model": "qwen", "keep_alive": 0}))
    await lab.until(lambda: _waits(lab))
    go(client)
    await lab.until(lambda: lab.gateway.ended_at, _SOON)


def _waits(lab: OllamaLab) -> bool:
    return any(not one.start.startswith(b"GET /v1/models ") for one in lab.gateway.requests)
