"""Clients that stream answers from a gateway all the time, in a thread of their own."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

__all__ = ["Answer", "Clients", "streaming"]


@dataclass(frozen=True)
class Answer:
    """One whole answer. `begun`: by the monotonic clock, when it was asked for; `models`: that its events name."""

    begun: float
    text: str
    models: frozenset[str]


@dataclass
class Clients:
    """What they have got so far.

    Attributes:
        failed: what was no whole answer.
    """

    answers: list[Answer] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def since(self, begun: float) -> list[Answer]:
        """Answers to requests that were sent after that."""
        return [one for one in list(self.answers) if one.begun > begun]

    def texts(self) -> Counter[str]:
        return Counter(one.text for one in self.answers)


@contextmanager
def streaming(url: str, body: dict[str, Any], *, clients: int) -> Iterator[Clients]:
    """Have `clients` send `body` to `url`, each again as soon as it was answered."""
    found, done = Clients(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_all(url, body | {"stream": True}, clients, found, done)))
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join(120)
    assert not thread.is_alive(), "a request that never ends"


async def _all(url: str, body: dict[str, Any], clients: int, found: Clients, done: threading.Event) -> None:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(trust_env=False, timeout=60, limits=limits) as http:
        await asyncio.gather(*(_one(http, url, body, found, done) for _ in range(clients)))


async def _one(http: httpx2.AsyncClient, url: str, body: dict[str, Any], found: Clients, done: threading.Event) -> None:
    while not done.is_set():
        begun, text, models, ended = time.monotonic(), "", set(), False
        try:
            async with http.stream("POST", url, json=body) as answer:
                if not answer.is_success:
                    found.failed.append(f"{answer.status_code} {(await answer.aread())[:300]!r}")
                    await asyncio.sleep(0.05)
                    continue
                async for line in answer.aiter_lines():
                    if line == "data: [DONE]":
                        ended = True
                    elif line:
                        event = json.loads(line.removeprefix("data: "))
                        models.add(str(event.get("model")))
                        text += event["choices"][0]["delta"].get("content") or "" if event.get("choices") else ""
        except (httpx2.HTTPError, ValueError) as error:
            found.failed.append(f"{error!r} after {text!r}")
            continue
        if ended:
            found.answers.append(Answer(begun, text, frozenset(models)))
        else:
            found.failed.append(f"no end after {text!r}")
