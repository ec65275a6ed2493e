"""Mixed traffic for a while: no error that was not injected, and nothing that grows.

`GARRISON_SOAK_SECONDS=600` makes it longer than the minute that it takes in the suite.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import pytest
from server_lab import ServerLab, chat_body, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
SECONDS = float(os.environ.get("GARRISON_SOAK_SECONDS", "60"))
CLIENTS = 12
MOST_GROWTH = 24 * 2**20


def test_mixed_traffic_without_an_error_or_growth(labs: Callable[..., ServerLab], tiny_model: Path) -> None:
    lab = labs(max_running_instances="2", residency="1s", idle_timeout="3s", drain_timeout="20s")
    lab.start()
    for name in "abc":
        lab.create(name, tiny_model, backend_options={"tokens_per_second": 200})
    assert lab.chat("a").is_success
    (pid,) = lab.workers()
    assert lab.process is not None
    both = psutil.Process(pid), psutil.Process(lab.process.pid)
    asyncio.run(traffic(str(lab.http.base_url), 5.0, Counter()))
    before = [(one.memory_info().rss, one.num_fds()) for one in both]
    seen: Counter[str] = Counter()
    asyncio.run(traffic(str(lab.http.base_url), SECONDS, seen))
    assert {one for one in seen if one.startswith("wrong")} == set(), seen
    assert {"chat", "stream", "left", "unknown", "bad", "list"} <= set(seen)
    assert lab.workers() == [pid], "it is still the same"
    for one, (memory, files) in zip(both, before, strict=True):
        assert one.memory_info().rss - memory < MOST_GROWTH
        wait_for(lambda one=one, files=files: one.num_fds() <= files + 4, 30, "descriptors are back")  # type: ignore[misc]  # defaults in a lambda
    wait_for(lambda: all(not lab.instance(name)["requests"] for name in "abc"), 30, "nothing is counted any more")


async def traffic(url: str, seconds: float, seen: "Counter[str]") -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    limits = httpx2.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60, limits=limits) as client:
        await asyncio.gather(*(one_client(client, random.Random(number), end, seen) for number in range(CLIENTS)))


async def one_client(client: httpx2.AsyncClient, chance: random.Random, end: float, seen: "Counter[str]") -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < end:
        kind = chance.choices(("chat", "stream", "left", "unknown", "bad", "list"), (8, 6, 3, 1, 1, 1))[0]
        try:
            right = await asked(client, kind, chance)
        except httpx2.HTTPError as error:
            seen[f"wrong: {kind}: {error!r}"] += 1
        else:
            seen[kind if right is None else f"wrong: {kind}: {right}"] += 1


async def asked(client: httpx2.AsyncClient, kind: str, chance: random.Random) -> str | None:
    """Make one request; what was wrong about its answer."""
    model = chance.choice("abc")
    if kind == "list":
        answer = await client.get("/v1/models")
        return None if {one["id"] for one in answer.json()["data"]} == set("abc") else answer.text
    if kind == "bad":
        answer = await client.post("/v1/chat/completions", content=b'{"model":')
        return None if answer.status_code == 400 else answer.text
    if kind == "unknown":
        answer = await client.post("/v1/chat/completions", json=chat_body("none", 1))
        return None if answer.status_code == 404 else answer.text
    body = chat_body(model, chance.randrange(1, 30), stream=kind != "chat")
    if kind == "chat":
        answer = await client.post("/v1/chat/completions", json=body)
        done = answer.is_success and answer.json()["choices"][0]["finish_reason"] in ("stop", "length")
        return None if done else f"{answer.status_code} {answer.text[:200]}"
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if not answer.is_success:
            return f"{answer.status_code} {(await answer.aread())[:200]!r}"
        last = ""
        async for line in answer.aiter_lines():
            last = line or last
            if kind == "left" and chance.random() < 0.3:
                return None
    return None if last == "data: [DONE]" else f"it ended with {last!r}"
