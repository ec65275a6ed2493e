"""Chat, completions, embeddings: shapes, limits, streams, determinism."""

import asyncio
import base64
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from garrison.sim.faults import Faults

from .client import Client, call, load, request_bytes, text, until, write_adapter
from .conftest import Sleeps, Start

CHAT = {"model": "acme/tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
PLAIN = {"model": "acme/tiny", "prompt": "hi there", "max_tokens": 3}


async def test_chat(start: Start) -> None:
    reply = await call(await start(), "POST", "/v1/chat/completions", CHAT)
    body = reply.json
    assert (reply.status, body["object"], body["model"]) == (200, "chat.completion", "acme/tiny")
    assert body["id"].startswith("chatcmpl-")
    choice = body["choices"][0]
    assert (choice["message"]["role"], choice["finish_reason"], choice["index"]) == ("assistant", "length", 0)
    assert len(choice["message"]["content"].split()) == 3
    usage = body["usage"]
    assert usage["completion_tokens"] == 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + 3


async def test_completion_of_several_prompts(start: Start) -> None:
    sim = await start()
    body = (await call(sim, "POST", "/v1/completions", PLAIN | {"prompt": ["one", "two"]})).json
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert body["choices"][0]["text"] == await text(sim, "acme/tiny", "one", max_tokens=3)
    assert body["usage"]["completion_tokens"] == 6


async def test_token_ids_and_n(start: Start) -> None:
    body = (await call(await start(), "POST", "/v1/completions", PLAIN | {"prompt": [[3, 4], [5]], "n": 2})).json
    assert len({choice["text"] for choice in body["choices"]}) == 4
    assert body["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_stream_says_the_same_as_the_whole(start: Start, path: str) -> None:
    sim = await start()
    chat = "chat" in path
    body = CHAT if chat else PLAIN
    whole = (await call(sim, "POST", path, body)).json["choices"][0]
    stream = body | {"stream": True, "stream_options": {"include_usage": True}}
    reply = await call(sim, "POST", path, stream)
    *events, usage, done = reply.events
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3
    pieces = [event["choices"][0]["delta"]["content"] if chat else event["choices"][0]["text"] for event in events]
    assert "".join(pieces) == (whole["message"]["content"] if chat else whole["text"])
    assert [event["choices"][0]["finish_reason"] for event in events][-2:] == [None, "length"]
    assert len({event["id"] for event in events}) == 1
    if chat:
        assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


async def test_stream_without_usage(start: Start) -> None:
    reply = await call(await start(), "POST", "/v1/completions", PLAIN | {"stream": True})
    assert all(event == "[DONE]" or event["choices"] for event in reply.events)


async def test_stop_string(start: Start) -> None:
    sim = await start()
    whole = await text(sim, "acme/tiny", "hi", max_tokens=20)
    stop = whole[7:9]
    cut = (await call(sim, "POST", "/v1/completions", PLAIN | {"prompt": "hi", "max_tokens": 20, "stop": stop})).json
    assert cut["choices"][0]["text"] == whole[: whole.index(stop)]
    assert (cut["choices"][0]["finish_reason"], cut["choices"][0]["stop_reason"]) == ("stop", stop)
    streamed = PLAIN | {"prompt": "hi", "max_tokens": 20, "stop": [stop], "stream": True}
    events = (await call(sim, "POST", "/v1/completions", streamed)).events
    assert "".join(event["choices"][0]["text"] for event in events[:-1]) == whole[: whole.index(stop)]
    assert events[-2]["choices"][0]["stop_reason"] == stop


async def test_a_natural_end(start: Start) -> None:
    sim = await start()
    choice = (await call(sim, "POST", "/v1/completions", PLAIN | {"max_tokens": 500})).json["choices"][0]
    assert choice["finish_reason"] == "stop"
    endless = PLAIN | {"max_tokens": 500, "ignore_eos": True}
    choice = (await call(sim, "POST", "/v1/completions", endless)).json["choices"][0]
    assert (choice["finish_reason"], len(choice["text"].split())) == ("length", 500)


REFUSED: list[tuple[str, str, Any, int, str, str | None]] = [
    ("unknown model", "/v1/completions", PLAIN | {"model": "x"}, 404, "The model `x` does not exist.", "model"),
    ("no messages", "/v1/chat/completions", {"model": "acme/tiny"}, 400, "Field required", "body.messages"),
    ("empty messages", "/v1/chat/completions", CHAT | {"messages": []}, 400, "empty conversation", None),
    ("no prompt", "/v1/completions", {"model": "acme/tiny"}, 400, "Either prompt or prompt_embeds", "prompt"),
    ("max_tokens 0", "/v1/completions", PLAIN | {"max_tokens": 0}, 400, "must be at least 1, got 0", "max_tokens"),
    ("max_tokens text", "/v1/completions", PLAIN | {"max_tokens": "2"}, 400, "valid integer", "body.max_tokens"),
    ("max_tokens too big", "/v1/completions", PLAIN | {"max_tokens": 5000}, 400, "cannot be greater", "max_tokens"),
    ("prompt too long", "/v1/completions", PLAIN | {"prompt": "hi " * 5000}, 400, "maximum context", "input_tokens"),
    ("prompt that fills it", "/v1/completions", PLAIN | {"prompt": [7] * 4096}, 400, "got 0", "max_tokens"),
    ("not JSON", "/v1/completions", b"{bad", 400, "JSON decode error", "body.1"),
    ("not an object", "/v1/completions", b"[]", 400, "valid dictionary", "body"),
    ("not text", "/v1/completions", b'{"prompt": "\xff"}', 400, "error parsing the body", None),
    ("nested too deeply", "/v1/completions", b"[" * 100_000, 400, "JSON decode error", "body.0"),
    ("bad role", "/v1/chat/completions", CHAT | {"messages": [{"content": "x"}]}, 400, "Field", "body.messages.0.role"),
    ("embedding of nothing", "/v1/embeddings", {"model": "acme/tiny"}, 400, "text or tokens", "body.input"),
]


@pytest.mark.parametrize(
    ("path", "body", "status", "words", "param"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
)
async def test_refused(start: Start, path: str, body: Any, status: int, words: str, param: str | None) -> None:
    sim = await start()
    reply = await call(sim, "POST", path, body)
    error = reply.json["error"]
    assert (reply.status, error["code"], error["param"]) == (status, status, param)
    assert words in error["message"]
    assert list(error) == ["message", "type", "param", "code"]


async def test_content_type_is_checked(start: Start) -> None:
    reply = await call(await start(), "POST", "/v1/completions", PLAIN, {"Content-Type": "text/plain"})
    assert reply.status == 400
    assert "Unsupported Media Type" in reply.json["error"]["message"]


async def test_a_model_left_out_is_the_base(start: Start) -> None:
    body = (await call(await start(served_names=("a", "b")), "POST", "/v1/completions", {"prompt": "hi"})).json
    assert body["model"] == "a"


async def test_deterministic_under_the_seed(start: Start) -> None:
    one, same, other = await start(seed=1), await start(seed=1), await start(seed=2)
    replies = [(await call(sim, "POST", "/v1/completions", PLAIN)).json for sim in (one, same, other)]
    texts = [reply["choices"][0]["text"] for reply in replies]
    assert texts[0] == texts[1] != texts[2]
    assert replies[0]["id"] == replies[1]["id"]
    assert await text(one, "acme/tiny", "hi", seed=5) != await text(one, "acme/tiny", "hi", seed=6)


async def test_answers_depend_on_base_and_weights(start: Start, tmp_path: Path) -> None:
    sim, other = await start(), await start(model="acme/other")
    await load(sim, "a", write_adapter(tmp_path / "a", seed=1))
    await load(sim, "b", write_adapter(tmp_path / "b", seed=2))
    await load(sim, "c", write_adapter(tmp_path / "c", seed=1))
    texts = [await text(sim, model, "hi", max_tokens=1) for model in ("acme/tiny", "a", "b", "c")]
    assert texts[1] == texts[3]
    assert len({*texts, await text(other, "acme/other", "hi", max_tokens=1)}) == 4


async def test_embeddings(start: Start) -> None:
    sim = await start()
    body = (
        await call(sim, "POST", "/v1/embeddings", {"model": "acme/tiny", "input": ["a", "b"], "dimensions": 8})
    ).json
    first, second = (row["embedding"] for row in body["data"])
    assert len(first) == 8
    assert math.isclose(sum(value * value for value in first), 1.0)
    assert first != second
    packed = (
        await call(sim, "POST", "/v1/embeddings", {"input": "a", "dimensions": 8, "encoding_format": "base64"})
    ).json
    assert struct.unpack("<8f", base64.b64decode(packed["data"][0]["embedding"])) == pytest.approx(first)


async def test_tokenize(start: Start) -> None:
    body = (await call(await start(), "POST", "/tokenize", {"prompt": "hi there", "return_token_strs": True})).json
    assert (body["count"], body["token_strs"], body["max_model_len"]) == (2, ["hi", " there"], 4096)


async def test_pace_of_a_stream(start: Start, sleeps: Sleeps) -> None:
    sim = await start(sleep=sleeps, faults=Faults(ttft=1.5, tokens_per_second=4))
    await call(sim, "POST", "/v1/completions", PLAIN | {"stream": True})
    assert sleeps.seconds == [1.5, 0.25, 0.25]


async def test_pace_of_a_whole(start: Start, sleeps: Sleeps) -> None:
    sim = await start(sleep=sleeps, faults=Faults(ttft=1.5, tokens_per_second=4))
    await call(sim, "POST", "/v1/completions", PLAIN)
    assert sleeps.seconds == [2.0]


async def test_running_and_waiting(start: Start) -> None:
    gate = asyncio.Event()

    async def held(_seconds: float) -> None:
        await gate.wait()

    sim = await start(sleep=held, faults=Faults(ttft=1), max_num_seqs=1)
    calls = [asyncio.create_task(call(sim, "POST", "/v1/completions", PLAIN)) for _ in range(3)]
    await until(lambda: sim.counters.running == 1 and sim.counters.waiting == 2)
    page = (await call(sim, "GET", "/metrics")).body.decode()
    assert 'vllm:num_requests_running{engine="0",model_name="acme/tiny"} 1.0' in page
    assert 'vllm:num_requests_waiting{engine="0",model_name="acme/tiny"} 2.0' in page
    gate.set()
    assert [(await one).status for one in calls] == [200] * 3
    assert (sim.counters.running, sim.counters.waiting, sim.counters.running_tokens) == (0, 0, 0)


async def test_running_adapters_are_in_the_metrics(start: Start, tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def held(_seconds: float) -> None:
        await gate.wait()

    sim = await start(sleep=held, faults=Faults(ttft=1))
    await load(sim, "sql", write_adapter(tmp_path / "sql"))
    running = asyncio.create_task(call(sim, "POST", "/v1/completions", PLAIN | {"model": "sql"}))
    await until(lambda: sim.counters.running == 1)
    page = (await call(sim, "GET", "/metrics")).body.decode()
    assert 'vllm:lora_requests_info{max_lora="1",running_lora_adapters="sql",waiting_lora_adapters=""}' in page
    gate.set()
    await running


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_goes_away(start: Start, stream: bool) -> None:
    forever = asyncio.Event()

    async def held(_seconds: float) -> None:
        await forever.wait()

    sim = await start(sleep=held, faults=Faults(ttft=1))
    client = await Client.open(sim)
    await client.send(request_bytes("POST", "/v1/chat/completions", CHAT | {"stream": stream}))
    await until(lambda: sim.counters.running == 1)
    await client.close()
    await until(lambda: sim.counters.running == 0)
    assert sim.aborted_requests == 1
    assert sim.open_connections == 0
    assert not stream or sim.counters.finished["abort"] == 1


async def test_a_client_that_goes_away_while_waiting(start: Start) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True)
    await call(sim, "POST", "/sleep")
    client = await Client.open(sim)
    await client.send(request_bytes("POST", "/v1/completions", PLAIN))
    await until(lambda: sim.counters.waiting == 1)
    await client.close()
    await until(lambda: sim.counters.waiting == 0)


async def test_a_sleeping_engine_keeps_requests_waiting(start: Start) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True)
    await call(sim, "POST", "/sleep")
    waiting = asyncio.create_task(call(sim, "POST", "/v1/completions", PLAIN))
    await until(lambda: sim.counters.waiting == 1)
    assert not waiting.done()
    await call(sim, "POST", "/wake_up")
    assert (await waiting).status == 200


async def test_sleep_aborts_what_runs(start: Start) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True, faults=Faults(tokens_per_second=200))
    endless = PLAIN | {"stream": True, "max_tokens": 4000, "ignore_eos": True}
    running = asyncio.create_task(call(sim, "POST", "/v1/completions", endless))
    await until(lambda: sim.counters.running == 1)
    await call(sim, "POST", "/sleep")
    assert (await running).events[-2]["choices"][0]["finish_reason"] == "abort"
