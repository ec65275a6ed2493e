"""Requests through the server to a scripted gateway: what goes there, what comes back, and who is refused."""

import asyncio
import json
from typing import Any

import pytest
from gateway_lab import Message
from ollama_lab import MODELS, Cut, OllamaLab, Unfinished, answer, events, post

from garrison.gateway.ollama import client as client_module

USER = [{"role": "user", "content": "hi"}]
CHAT = {"model": "qwen", "messages": USER}
WHOLE = answer({"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]})
WORD = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
LAST = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def body(message: Message) -> Any:
    return json.loads(message.body)


def lines(message: Message) -> list[dict[str, Any]]:
    return [json.loads(line) for line in message.body.splitlines()]


def asked(lab: OllamaLab) -> list[str]:
    return [one.start.decode().rpartition(" ")[0] for one in lab.gateway.requests]


async def test_a_stream_is_written_as_it_arrives(lab: OllamaLab) -> None:
    lab.decide = lambda _: Unfinished(events(WORD, last=b""))
    client = await lab.client()
    client.send(post("/api/chat", CHAT))
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert b"content-type: application/x-ndjson" in head
    first = await client.reader.readuntil(b"\n\r\n")
    assert b'"content":"a"' in first
    told = body(lab.gateway.requests[-1])
    assert told == {"model": "qwen", "messages": USER, "stream": True, "stream_options": {"include_usage": True}}
    assert asked(lab) == ["POST /v1/chat/completions"], "a plain name needs no list"


async def test_an_answer_in_one_piece(lab: OllamaLab) -> None:
    lab.decide = lambda _: WHOLE
    found = await lab.ask(post("/api/chat", {**CHAT, "stream": False}))
    assert found.get(b"content-type") == b"application/json; charset=utf-8"
    assert body(found)["message"] == {"role": "assistant", "content": "hello"}
    found = await lab.ask(post("/api/chat", CHAT))
    assert body(found)["message"]["content"] == "hello", "an engine that does not stream"


@pytest.mark.parametrize(
    "header", ["Authorization: Bearer sk-1", "X-API-Key: sk-1", "X-Request-Id: r-1", "X-Session-Id: s-1"]
)
async def test_headers_of_the_client_go_on(lab: OllamaLab, header: str) -> None:
    lab.decide = lambda _: WHOLE
    await lab.ask(post("/api/chat", {**CHAT, "model": "qwen:latest", "stream": False}, header, "Cookie: c=1"))
    name, _, value = header.partition(": ")
    assert [one.get(name.lower().encode()) for one in lab.gateway.requests] == [value.encode()] * 2
    for one in lab.gateway.requests:
        assert one.get(b"cookie") is None
        assert one.get(b"host") == lab.gateway.url.removeprefix("http://").encode()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_the_first_word_keeps_its_status(lab: OllamaLab, status: int, stream: bool) -> None:
    lab.decide = lambda _: answer({"error": {"message": "not now"}}, status, "Retry-After: 7", "X-Request-Id: r-9")
    found = await lab.ask(post("/api/chat", {**CHAT, "stream": stream}))
    assert found.status == status
    assert body(found) == {"error": "not now"}
    assert (found.get(b"retry-after"), found.get(b"x-request-id")) == (b"7", b"r-9")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (events(WORD, b'data: {"error":{"message":"no memory"}}\n\n'), "no memory"),
        (events(WORD), "ended before it was complete"),
        (Cut(events(WORD, last=b"")), "broke off"),
    ],
)
async def test_an_error_in_the_middle_is_the_last_line(lab: OllamaLab, told: bytes, words: str) -> None:
    lab.decide = lambda _: told
    found = await lab.ask(post("/api/generate", {"model": "qwen", "prompt": "hi"}))
    assert found.status == 200
    first, last = lines(found)
    assert first["response"] == "a"
    assert words in last["error"]


async def test_what_is_no_answer_is_502(lab: OllamaLab) -> None:
    lab.decide = lambda _: answer(b"<html>")
    found = await lab.ask(post("/api/chat", {**CHAT, "stream": False}))
    assert found.status == 502
    assert "no completion" in body(found)["error"]


async def test_a_gateway_that_is_not_there(lab: OllamaLab) -> None:
    await lab.gateway.close()
    for data in (post("/api/chat", CHAT), post("/api/chat", {**CHAT, "stream": False}), post("/api/show", CHAT)):
        found = await lab.ask(data)
        assert found.status == 502
        assert "the gateway does not answer" in body(found)["error"]
        assert found.get(b"retry-after") == b"1"


# --- names, and the context that a client counts on


async def test_the_tag_of_a_name_is_looked_up(lab: OllamaLab) -> None:
    lab.decide = lambda _: WHOLE
    found = await lab.ask(post("/api/chat", {**CHAT, "model": "qwen:latest", "stream": False}))
    assert body(found)["model"] == "qwen:latest"
    assert asked(lab) == ["GET /v1/models", "POST /v1/chat/completions"]
    assert body(lab.gateway.requests[-1])["model"] == "qwen"


async def test_a_context_above_the_one_that_is_served_is_refused(lab: OllamaLab) -> None:
    found = await lab.ask(post("/api/chat", {**CHAT, "options": {"num_ctx": 8192}}))
    assert found.status == 400
    assert "num_ctx is 8192, but 'qwen' is served with a context of 4096 tokens" in body(found)["error"]
    assert asked(lab) == ["GET /v1/models"]


async def test_a_context_that_only_the_engine_knows(lab: OllamaLab) -> None:
    def decide(message: Message) -> bytes:
        if message.start.startswith(b"GET /upstream/route/v1/models "):
            return answer({"data": [{"id": "x", "max_model_len": 2048}, {"id": "adapter", "max_model_len": None}]})
        return WHOLE

    lab.decide = decide
    more = {"model": "route", "stream": False}
    assert (await lab.ask(post("/api/chat", {**CHAT, **more, "options": {"num_ctx": 2048}}))).status == 200
    found = await lab.ask(post("/api/chat", {**CHAT, **more, "options": {"num_ctx": 2049}}))
    assert (found.status, "2048 tokens" in body(found)["error"]) == (400, True)


async def test_a_context_that_nobody_knows_is_not_checked(lab: OllamaLab) -> None:
    lab.decide = lambda one: answer({}, 404) if b"/upstream/" in one.start else WHOLE
    data = {**CHAT, "model": "route", "stream": False, "options": {"num_ctx": 999_999}}
    assert (await lab.ask(post("/api/chat", data))).status == 200


async def test_llama_cpp_says_it_elsewhere(lab: OllamaLab) -> None:
    def decide(message: Message) -> bytes:
        if message.start.startswith(b"GET /upstream/route/props "):
            return answer({"default_generation_settings": {"n_ctx": 512}})
        return answer({"data": [{"id": "x"}]})

    lab.decide = decide
    found = await lab.ask(post("/api/chat", {**CHAT, "model": "route", "options": {"num_ctx": 513}}))
    assert "512 tokens" in body(found)["error"]


async def test_a_model_that_does_not_exist(lab: OllamaLab) -> None:
    lab.decide = lambda _: answer({"error": {"message": "there is no model 'quen'. Did you mean qwen?"}}, 404)
    for path in ("/api/show", "/api/generate", "/api/chat"):
        found = await lab.ask(post(path, {"model": "quen"}))
        assert (found.status, body(found)["error"]) == (404, "there is no model 'quen'. Did you mean qwen?")
    for path in ("/api/show", "/api/chat", "/api/embed", "/api/pull"):
        found = await lab.ask(post(path, {"stream": False}))
        assert (found.status, body(found)["error"]) == (400, "model is required")


# --- loading and unloading


@pytest.mark.parametrize(("path", "more"), [("/api/generate", {}), ("/api/chat", {"messages": []})])
async def test_an_empty_request_loads(lab: OllamaLab, path: str, more: dict[str, Any]) -> None:
    lab.decide = lambda _: answer({"data": [{"id": "x", "max_model_len": 4096}]})
    found = await lab.ask(post(path, {"model": "qwen", "keep_alive": "5m", **more}))
    assert (found.status, body(found)["done_reason"]) == (200, "load")
    assert asked(lab) == ["GET /v1/models", "GET /upstream/qwen/v1/models"]
    found = await lab.ask(post(path, {"model": "qwen", "options": {"num_ctx": 5000}, **more}))
    assert found.status == 400


@pytest.mark.parametrize("keep_alive", [0, "0", "0s"])
async def test_keep_alive_zero_unloads(lab: OllamaLab, keep_alive: Any) -> None:
    lab.decide = lambda _: answer({"success": True})
    found = await lab.ask(post("/api/generate", {"model": "qwen:latest", "keep_alive": keep_alive}))
    assert body(found)["done_reason"] == "unload"
    assert asked(lab) == ["GET /v1/models", "POST /models/unload"]
    assert body(lab.gateway.requests[-1]) == {"model": "qwen"}


async def test_who_may_not_unload_is_told_so(lab: OllamaLab) -> None:
    lab.decide = lambda _: answer({"error": {"message": "it has no scope manage"}}, 403)
    found = await lab.ask(post("/api/chat", {"model": "qwen", "keep_alive": 0}))
    assert (found.status, body(found)) == (403, {"error": "it has no scope manage"})


async def test_a_model_is_unloaded_after_its_answer(lab: OllamaLab) -> None:
    lab.decide = lambda one: answer({}) if b"/models/unload" in one.start else events(WORD, LAST)
    found = await lab.ask(post("/api/chat", {**CHAT, "keep_alive": 0}))
    assert lines(found)[-1]["done"] is True
    await lab.until(lambda: asked(lab) == ["POST /v1/chat/completions", "POST /models/unload"])


# --- embeddings, lists, pulls


async def test_embeddings(lab: OllamaLab) -> None:
    lab.decide = lambda _: answer({"data": [{"embedding": [3, 4]}], "usage": {"prompt_tokens": 2}})
    found = body(await lab.ask(post("/api/embed", {"model": "qwen:latest", "input": "a"})))
    assert (found["embeddings"], found["prompt_eval_count"]) == ([[0.6, 0.8]], 2)
    assert body(lab.gateway.requests[-1])["model"] == "qwen"
    assert body(await lab.ask(post("/api/embeddings", {"model": "qwen", "prompt": "a"}))) == {"embedding": [3, 4]}
    assert body(await lab.ask(post("/api/embed", {"model": "qwen", "input": ""})))["embeddings"] == []
    assert asked(lab)[-1].startswith("GET /upstream/qwen/"), "nothing to embed is a way to load"


async def test_lists(lab: OllamaLab) -> None:
    client = await lab.client()
    found = body(await client.ask(b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    assert [one["name"] for one in found["models"]] == ["qwen:latest", "route:latest"]
    found = body(await client.ask(b"GET /api/ps HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    assert [one["name"] for one in found["models"]] == ["qwen:latest"]
    assert body(await client.ask(post("/api/show", {"name": "qwen"})))["model_info"]["vllm.context_length"] == 4096


async def test_pull(lab: OllamaLab) -> None:
    found = lines(await lab.ask(post("/api/pull", {"model": "qwen"})))
    assert found[0] == {"status": "pulling manifest"}
    assert found[-1] == {"status": "success"}
    assert body(await lab.ask(post("/api/pull", {"name": "qwen", "stream": False}))) == {"status": "success"}
    lab.decide = lambda _: answer({"error": "x"}, 404)
    found = await lab.ask(post("/api/pull", {"model": "llama3"}))
    assert found.status == 404
    assert "model 'llama3' is not served here" in body(found)["error"]


async def test_who_it_is(lab: OllamaLab) -> None:
    client = await lab.client()
    found = await client.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (found.status, found.body) == (200, b"Ollama is running")
    found = await client.ask(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (found.status, found.body) == (200, b"")
    found = body(await client.ask(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    assert tuple(map(int, found["version"].split("."))) >= (0, 6, 4), "what VS Code asks for"
    assert lab.gateway.requests == []


@pytest.mark.parametrize(
    ("start", "status"),
    [
        ("POST /api/create", 501),
        ("POST /api/copy", 501),
        ("DELETE /api/delete", 501),
        ("POST /api/push", 501),
        ("POST /api/blobs/sha256:abc", 501),
        ("HEAD /api/blobs/sha256:abc", 501),
        ("GET /api/chat", 405),
        ("POST /api/tags", 405),
        ("GET /api/nothing", 404),
        ("POST /v1/audio/transcriptions", 404),
        ("GET /models/unload", 404),
        ("GET /../etc", 404),
    ],
)
async def test_what_is_not_there(lab: OllamaLab, start: str, status: int) -> None:
    found = await lab.ask(f"{start} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
    assert found.status == status
    if start[:4] != "HEAD":
        assert "error" in body(found)
    assert lab.gateway.requests == []


# --- OpenAI's paths


async def test_openai_s_paths_are_passed_on_but_for_the_name(lab: OllamaLab) -> None:
    lab.decide = lambda _: events(WORD, LAST)
    data = {"stream": True, "model": "qwen:latest", "messages": USER, "n": 1}
    found = await lab.ask(post("/v1/chat/completions", data, "Authorization: Bearer k", "Anthropic-Version: 1"))
    assert (found.get(b"content-type"), found.body) == (b"text/event-stream", WORD + LAST)
    told = lab.gateway.requests[-1]
    assert body(told) == {**data, "model": "qwen"}
    assert (told.get(b"authorization"), told.get(b"anthropic-version")) == (b"Bearer k", b"1")


async def test_their_errors_are_passed_on_as_they_are(lab: OllamaLab) -> None:
    error = {"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": "x"}}
    lab.decide = lambda _: answer(error, 429, "Retry-After: 3")
    found = await lab.ask(post("/v1/messages", {"model": "qwen"}))
    assert (found.status, body(found), found.get(b"retry-after")) == (429, error, b"3")
    found = await lab.ask(post("/v1/chat/completions", b"{"))
    assert found.status == 400
    assert body(found)["error"]["type"] == "invalid_request_error", "our own have their form too"


async def test_their_lists(lab: OllamaLab) -> None:
    client = await lab.client()
    assert body(await client.ask(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")) == MODELS
    lab.decide = lambda _: answer({"id": "qwen"})
    assert body(await client.ask(b"GET /v1/models/a%2Fb HTTP/1.1\r\nHost: localhost\r\n\r\n")) == {"id": "qwen"}
    assert asked(lab)[-1] == "GET /v1/models/a%2Fb"


async def test_one_that_breaks_off_is_seen_to_be_incomplete(lab: OllamaLab) -> None:
    lab.decide = lambda _: Cut(events(WORD, last=b""))
    client = await lab.client()
    client.send(post("/v1/chat/completions", CHAT))
    found = await client.rest()
    assert WORD in found
    assert not found.endswith(b"0\r\n\r\n")


# --- pages, sizes, slow clients


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Host: localhost"], 200),
        (["Host: models.example.com"], 200),
        (["Host: evil.example"], 403),
        (["Host: localhost", "Origin: https://chat.example.com"], 200),
        (["Host: localhost", "Origin: http://localhost:3000"], 200),
        (["Host: localhost", "Origin: https://evil.example"], 403),
        (["Host: localhost", "Origin: null"], 403),
    ],
)
async def test_pages(lab: OllamaLab, headers: list[str], status: int) -> None:
    found = await lab.ask("\r\n".join(["GET /api/tags HTTP/1.1", *headers, "", ""]).encode())
    assert found.status == status
    origin = next((one.removeprefix("Origin: ") for one in headers if one.startswith("Origin")), None)
    allowed = found.get(b"access-control-allow-origin")
    assert allowed == (origin.encode() if origin is not None and status == 200 else None)


async def test_a_page_that_asks_first(lab: OllamaLab) -> None:
    lines = ["OPTIONS /api/chat HTTP/1.1", "Host: localhost", "Origin: https://chat.example.com", "", ""]
    found = await lab.ask("\r\n".join(lines).encode())
    assert found.status == 200
    assert b"authorization" in (found.get(b"access-control-allow-headers") or b"")
    assert b"POST" in (found.get(b"access-control-allow-methods") or b"")


async def test_a_body_over_the_limit(lab: OllamaLab) -> None:
    found = await lab.ask(post("/api/chat", b"x" * 100_001))
    assert found.status == 413
    client = await lab.client()
    client.send(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(12):
        client.send(b"%x\r\n%b\r\n" % (10_000, b"x" * 10_000))
    assert (await client.answer()).status == 413


async def test_a_body_that_does_not_arrive(lab: OllamaLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_BODY_SECONDS", 0.05)
    client = await lab.client()
    client.send(post("/api/chat", CHAT)[:-3])
    assert (await client.answer()).status == 408


async def test_a_head_that_does_not_arrive(lab: OllamaLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.gateway.ollama.process._HEAD_SECONDS", 0.05)
    client = await lab.client()
    client.send(b"POST /api/chat HTTP/1.1\r\n")
    assert await client.rest() == b""


async def test_a_client_that_reads_slowly_holds_the_engine_back(lab: OllamaLab) -> None:
    word = b'data: {"choices":[{"delta":{"content":"' + b"a" * 60_000 + b'"}}]}\n\n'
    lab.decide = lambda _: events(*[word] * 400, LAST)
    client = await lab.client()
    client.send(post("/api/chat", CHAT))
    await client.reader.readuntil(b"\r\n\r\n")
    await lab.until(lambda: lab.gateway.connections)
    waiting = [-1]

    def settled() -> bool:
        waiting.append(lab.gateway.connections[0].writer.transport.get_write_buffer_size())
        return len(waiting) > 20 and len(set(waiting[-20:])) == 1

    await lab.until(settled)
    assert waiting[-1] > 10_000_000, "most of it waits at the gateway"
    found = 0
    while not (piece := await asyncio.wait_for(client.reader.read(2**20), 10)).endswith(b"0\r\n\r\n"):
        found += len(piece)
    assert found > 23_000_000
