"""Keys with a limit of tokens at the gateway: what answers use is counted, and refused when it is used up."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from served import StartRaw, StartSim
from starlette.types import Receive, Scope, Send

from garrison.access.changes import NewKey
from garrison.access.identity import Caller, Identity
from garrison.access.limiter import Admission, Limiter, LimitKind
from garrison.access.permissions import INFERENCE, Limits
from garrison.api.authentication import FOUND
from garrison.base.errors import NotReadyError
from garrison.base.settings import Settings
from garrison.gateway.activator import Hold, Served, Upstream
from garrison.gateway.gateway import Gateway
from garrison.server.admission import KeyAdmission
from garrison.server.parts import Parts
from garrison.testing.clock import FakeClock

FIFTY = Limits(tokens_per_minute=50)
MODEL = "acme/tiny"


class OneUpstream:
    """`Activator` of one model. Without a URL it is not ready."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0

    def served(self) -> Sequence[Served]:
        return [Served(MODEL, 0)]

    def find(self, model: str) -> Served | None:
        return Served(MODEL, 0) if model == MODEL else None

    async def acquire(self, model: str, *, start: bool = True) -> Hold:
        self.asked += 1
        if not self.url:
            raise NotReadyError("it is not ready", details={"retry_after": 1})
        return _Held(Upstream(self.url))


class _Held:
    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream

    def release(self) -> None: ...


class Door:
    """A gateway whose callers all have one key."""

    def __init__(self, limits: Limits) -> None:
        self.clock = FakeClock()
        self.limiter = Limiter()
        self.limits = limits
        self.engine = OneUpstream()
        admission = KeyAdmission(lambda: Settings(), self.limiter, self.clock)
        self.gateway = Gateway(self.engine, admission, most_bytes=2**20)
        self.watch: Callable[[], None] = lambda: None
        transport = httpx2.ASGITransport(app=self._app)
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://door")

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = Identity(caller=Caller.KEY, name="k", permissions=INFERENCE, limits=self.limits, key_id=1)

        async def watched(message: Any) -> None:
            self.watch()
            await send(message)

        await self.gateway({**scope, FOUND: key}, receive, watched)

    @property
    def left(self) -> int:
        return self.limiter.standings(1, FIFTY, self.clock.monotonic())[LimitKind.TOKENS].remaining

    async def chat(self, most: int = 8, **fields: Any) -> httpx2.Response:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": most, **fields}
        return await self.client.post("/v1/chat/completions", json=body)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door(FIFTY)
    yield made
    await made.client.aclose()
    await made.gateway.passthrough.close()


def raw(body: bytes, kind: str = "application/json", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_is_refused_after_its_tokens_and_works_again_when_they_are_back(
    door: Door, start_sim: StartSim, stream: bool
) -> None:
    sim = await start_sim()
    door.engine.url = f"http://127.0.0.1:{sim.port}"
    fields = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    first = await door.chat(70, ignore_eos=True, **fields)
    assert first.is_success, first.text
    used = json.loads(first.text.split("data: ")[-2])["usage"] if stream else first.json()["usage"]
    assert used["completion_tokens"] == 70
    refused = await door.chat()
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.json()["error"]["code"] == "rate-limited"
    assert "50 tokens per minute" in refused.json()["error"]["message"]
    wait = int(refused.headers["retry-after"])
    assert wait == -(-(used["total_tokens"] - 50 + 1) * 60 // 50), "until one token is there"
    assert door.engine.asked == 1, "it reached no engine"
    door.clock.advance(wait - 1.3)
    assert (await door.chat()).status_code == 429
    door.clock.advance(1.3)
    assert (await door.chat(1)).is_success


async def test_a_stream_without_usage_is_estimated_while_it_passes(door: Door, start_sim: StartSim) -> None:
    sim = await start_sim()
    door.engine.url = f"http://127.0.0.1:{sim.port}"
    seen: list[int] = []
    door.watch = lambda: seen.append(door.left)
    assert (await door.chat(100, ignore_eos=True, stream=True)).is_success
    assert seen == sorted(seen, reverse=True)
    assert seen[0] >= 49
    assert len(set(seen)) > 3, "not all of it at the end"
    assert (await door.chat()).status_code == 429


async def test_an_anthropic_stream(door: Door, start_raw: StartRaw) -> None:
    started = {"type": "message_start", "message": {"usage": {"input_tokens": 20, "output_tokens": 1}}}
    ended = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 12}}
    body = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in (started, ended))
    door.engine.url = (await start_raw(raw(body.encode(), "text/event-stream"))).url
    answer = await door.client.post("/v1/messages", json={"model": MODEL, "messages": []})
    assert answer.text == body
    assert door.left == 50 - 32


FAILURES = {
    "refused by the engine": [raw(b'{"error": "no", "usage": {"total_tokens": 40}}', status="400 Bad Request")],
    "closed by the engine": [None, None],
}


@pytest.mark.parametrize("answers", FAILURES.values(), ids=FAILURES)
async def test_an_answer_that_is_no_success_uses_nothing(door: Door, start_raw: StartRaw, answers: Any) -> None:
    door.engine.url = (await start_raw(*answers)).url
    assert (await door.chat(messages=[{"role": "user", "content": "x" * 100}])).status_code >= 400
    assert door.left == 50


async def test_nor_does_a_request_for_an_engine_that_is_not_ready(door: Door) -> None:
    assert (await door.chat(messages=[{"role": "user", "content": "x" * 100}])).status_code == 503
    assert door.left == 50


async def test_counting_tokens_uses_none(door: Door, start_raw: StartRaw) -> None:
    door.engine.url = (await start_raw(raw(b'{"count": 40, "usage": {"total_tokens": 40}}'))).url
    assert (await door.client.post("/v1/tokenize", json={"model": MODEL, "prompt": "x" * 160})).is_success
    assert door.left == 50


async def test_answers_that_are_counted_are_not_compressed(door: Door, start_raw: StartRaw) -> None:
    engine = await start_raw(raw(b'{"usage": {"total_tokens": 40}}'))
    door.engine.url = engine.url
    await door.chat()
    assert b"accept-encoding: identity\r\n" in engine.heard[0].lower()
    assert engine.heard[0].lower().count(b"accept-encoding") == 1


async def test_a_key_that_is_deleted_is_forgotten_by_the_limiter(tmp_path: Path) -> None:
    parts = Parts(replace(Settings(), data_dir=tmp_path), {})
    try:
        await parts.keys.load()
        keys = [(await parts.keys.create_key(NewKey(name="k", limits=FIFTY))).key for _ in range(2)]
        for key in keys:
            found = parts.limiter.begin(key.id, key.limits, 0.0)
            assert isinstance(found, Admission)
            parts.limiter.end(found, 0.0, tokens=40)
        await parts.keys.delete_key(keys[0].id)
        left = [parts.limiter.standings(key.id, FIFTY, 0.0)[LimitKind.TOKENS].remaining for key in keys]
        assert left == [50, 10]
        assert parts.keys_changed.is_set()
    finally:
        await parts.shutdown()


async def test_other_limits_need_no_reading(door: Door, start_raw: StartRaw) -> None:
    door.limits = Limits(concurrent=1)
    engine = await start_raw(raw(b'{"usage": {"total_tokens": 40}}'))
    door.engine.url = engine.url
    assert (await door.chat()).is_success
    assert b"accept-encoding: identity" not in engine.heard[0].lower(), "passed on as it came"
    assert door.left == 50
    assert door.limiter.standings(1, door.limits, 0.0)[LimitKind.CONCURRENT].remaining == 1
