"""An adapter that changes while clients use it: no request fails, and none is answered by a mixture."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import tiny_model as maker
from server_lab import ServerLab, chat_body, wait_for

from .test_stack import MANIFEST, adapters, garrison

pytestmark = pytest.mark.system

_CLIENTS = 8
_UPDATES = 4


class Client(threading.Thread):
    """Asks the same again and again, half of the time as a stream, and keeps what it was told."""

    def __init__(self, lab: ServerLab, number: int, over: threading.Event) -> None:
        super().__init__()
        self.answers: set[str] = set()
        self.asked = 0
        self.failures: list[str] = []
        self._lab, self._number, self._over = lab, number, over

    def run(self) -> None:
        while not self._over.is_set():
            self.asked += 1
            try:
                self.answers.add(self._ask(stream=(self.asked + self._number) % 2 == 0))
            except Exception as error:  # noqa: BLE001 - whatever goes wrong is what the test looks for
                self.failures.append(repr(error))

    def _ask(self, *, stream: bool) -> str:
        body = chat_body("sql", 12, temperature=0, seed=1, stream=stream)
        if not stream:
            answer = self._lab.http.post("/v1/chat/completions", json=body)
            assert answer.is_success, answer.text
            return str(answer.json()["choices"][0]["message"]["content"])
        with self._lab.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.is_success, answer.read()
            return content(list(answer.iter_lines()))


def content(lines: list[str]) -> str:
    assert lines[-2:] == ["data: [DONE]", ""] or lines[-1] == "data: [DONE]", lines[-3:]
    events = [json.loads(one[6:]) for one in lines if one.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for one in events for choice in one["choices"])


def weights(path: Path, seed: int) -> None:
    for file in maker.make_adapter(path.with_name(f"made-{seed}"), seed=seed).iterdir():
        file.replace(path / file.name)


def test_an_update_under_load(labs: Any, tmp_path: Path, tiny_model: Path) -> None:
    adapter = maker.make_adapter(tmp_path / "sql")
    path = tmp_path / "garrison.yaml"
    path.write_text(MANIFEST.format(model=tiny_model, adapter=adapter))
    lab: ServerLab = labs()
    lab.start("-f", str(path))
    wait_for(lambda: lab.http.get("/api/v1/instances/qwen").is_success, 20, "created")
    assert lab.chat("qwen").is_success
    wait_for(lambda: len(adapters(lab)) == 1, 20, "loaded")
    wait_for(lambda: lab.chat("sql").is_success, 20, "routed")
    over = threading.Event()
    clients = [Client(lab, number, over) for number in range(_CLIENTS)]
    alone: set[str] = set()
    try:
        for one in clients:
            one.start()
        for seed in range(2, _UPDATES + 2):  # the first content is that of seed 1
            before = adapters(lab)
            weights(adapter, seed)
            done = garrison(lab, "apply", str(path), "--yes")
            assert done.returncode == 0, done.stdout + done.stderr
            wait_for(lambda before=before: len(now := adapters(lab)) == 1 and now != before, 30, "the old one has gone")  # type: ignore[misc]  # a default in a lambda
            answer = lab.chat("sql", most=12, temperature=0, seed=1)
            assert answer.is_success, answer.text
            alone.add(answer.json()["choices"][0]["message"]["content"])
    finally:
        over.set()
        for one in clients:
            one.join(60)
    assert [failure for one in clients for failure in one.failures] == []
    assert min(one.asked for one in clients) > _UPDATES
    assert len(alone) == _UPDATES, "each version answers in its own words"
    told = set().union(*(one.answers for one in clients))
    assert len(told) <= _UPDATES + 1, "the versions, and nothing between them"
