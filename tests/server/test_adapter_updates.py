"""Adapters of a real server under load: new versions come and go, the server is killed, and no request notices."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_model as maker
from server_lab import Labs, ServerLab, chat_body, wait_for
from streaming_clients import Clients, streaming

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

MANIFEST = """\
stack: box
instances:
  qwen: {{model: {model}, engine: sim, idle: never, options: {{tokens-per-second: 400, max-num-seqs: 64}}}}
adapters:
  sql: {{target: qwen, lora_path: {adapter}{more}}}
policy: {{on_drift: restore, interval: 1s}}
routes:
  bot: {{to: qwen/sql}}
"""
PROMPT = "How many orders were shipped to each of the twelve regions last week, and which one was late? " * 3
"""Longer than some blocks of the engine's prefix cache, which would show a mixture."""
VERSIONS = 3
SECONDS = 120.0
"""Longer than a command takes to start on a machine that does much else."""


class Box:
    """A server with one instance and one adapter, of which there are some versions.

    Attributes:
        texts: what each version answers.
    """

    def __init__(self, lab: ServerLab, root: Path, model: Path, more: str) -> None:
        self.lab = lab
        self.adapter = root / "sql"
        self.path = root / "garrison.yaml"
        self.path.write_text(MANIFEST.format(model=model, adapter=self.adapter, more=more))
        self._root = root
        self.texts: list[str] = []

    def write(self, version: int) -> None:
        """Put the weights of a version where the manifest says they are."""
        maker.make_adapter(self.adapter, seed=version)

    def start(self) -> None:
        self.write(0)
        self.lab.start("-f", str(self.path))
        wait_for(lambda: self.lab.chat("sql").is_success, SECONDS, "the adapter answers")
        for number in range(VERSIONS):
            source = maker.make_adapter(self._root / f"reference-{number}", seed=number)
            self.engine("load_lora_adapter", lora_name=f"reference-{number}", lora_path=str(source))
            body = self.body | {"model": f"qwen/reference-{number}"}
            answer = self.lab.http.post("/v1/chat/completions", json=body)
            self.texts.append(answer.json()["choices"][0]["message"]["content"])
            self.engine("unload_lora_adapter", lora_name=f"reference-{number}")
        assert len(set(self.texts)) == VERSIONS, "the versions can be told apart"

    @property
    def body(self) -> dict[str, Any]:
        return chat_body("sql", 24) | {"messages": [{"role": "user", "content": PROMPT}]}

    def engine(self, call: str, **body: str) -> None:
        answer = self.lab.http.post(f"/api/v1/instances/qwen/proxy/v1/{call}", json=body)
        assert answer.is_success, answer.text

    def served(self) -> list[str]:
        """What the engine calls its adapters."""
        answer = self.lab.http.get("/api/v1/instances/qwen/proxy/v1/models")
        return [one["id"] for one in answer.json()["data"] if one.get("parent")]

    def command(self, *arguments: str) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-m", "garrison.cli.main", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, env=self.lab.environ, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def applying(self, *, by_server: bool) -> "subprocess.Popen[str]":
        """Begin to apply: in a process of its own, or in the server's."""
        where = ("--server", str(self.lab.http.base_url)) if by_server else ()
        return self.command("apply", str(self.path), "--yes", *where)

    def apply(self, *, by_server: bool = False) -> None:
        """Apply, again while the agent holds the stack."""
        said = ""

        def done() -> bool:
            nonlocal said
            command = self.applying(by_server=by_server)
            said = command.communicate(timeout=SECONDS)[0]
            return command.returncode == 0

        wait_for(done, SECONDS, f"applied: {said}")

    def until_it_changes(
        self, command: "subprocess.Popen[str]", before: set[str], *, by_server: bool
    ) -> "subprocess.Popen[str]":
        """Return the command that applies, when the engine serves something else than before.

        It is begun again where it was refused: a server that has just started still holds the stack, as it finishes
        what the one before had begun.
        """

        def changed() -> bool:
            nonlocal command
            if command.poll() not in (None, 0):
                command.communicate()
                command = self.applying(by_server=by_server)
            return set(self.served()) != before

        wait_for(changed, SECONDS, "it is being updated")
        return command

    def check(self, clients: Clients) -> None:
        assert clients.failed == []
        strange = [one for one in clients.answers if one.text not in self.texts]
        assert not strange, f"{len(strange)} of {len(clients.answers)} answers are of no version: {strange[0]}"
        assert all(len(one.models) == 1 for one in clients.answers), "an answer of two versions"


@pytest.fixture
def boxes(labs: Labs, tmp_path: Path, tiny_model: Path) -> Callable[..., Box]:
    def make(more: str = "", **settings: str) -> Box:
        made = Box(labs(**settings), tmp_path, tiny_model, more)
        made.start()
        return made

    return make


@pytest.mark.parametrize(("workers", "model", "by_server"), [("1", "sql", False), ("2", "bot", True)])
def test_versions_change_under_load(boxes: Callable[..., Box], workers: str, model: str, by_server: bool) -> None:
    box = boxes(gateway_workers=workers)
    url = f"{box.lab.http.base_url}/v1/chat/completions"
    with streaming(url, box.body | {"model": model}, clients=16) as clients:
        for turn in range(1, 7):
            version = turn % VERSIONS
            box.write(version)
            box.apply(by_server=by_server)
            applied = time.monotonic()
            wait_for(lambda since=applied: len(clients.since(since)) >= 16, SECONDS, "answers")  # type: ignore[misc]
            newer = {one.text for one in clients.since(applied)}
            assert newer == {box.texts[version]}, "what is asked after an apply is answered by what was applied"
    box.check(clients)
    assert set(clients.texts()) == set(box.texts)
    wait_for(lambda: len(box.served()) == 1, SECONDS, "the versions before are gone")
    shown = box.command("inventory", "adapters", "--json")
    rows = json.loads(shown.communicate(timeout=SECONDS)[0])["rows"]
    assert [(one["name"], one["status"]) for one in rows] == [("sql", "served")]


def test_a_long_answer_keeps_the_version_that_it_began_with(boxes: Callable[..., Box]) -> None:
    """The old version stays until its last request has ended, however many updates come meanwhile."""
    box = boxes()
    (before,) = box.served()
    body = box.body | {"max_tokens": 4000, "ignore_eos": True, "stream": True}
    with box.lab.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        box.write(1)
        box.apply()
        assert before in box.served(), "it is in use"
        assert len(box.served()) == 2
        assert box.lab.http.post("/v1/chat/completions", json=box.body).json()["model"] != before
        rest = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert {one["model"] for one in rest} == {before}
    assert rest[-1]["choices"][0]["finish_reason"] == "length"
    wait_for(
        lambda: before not in box.served() and len(box.served()) == 1, SECONDS, "it is gone after its last request"
    )


@pytest.mark.parametrize("by_server", [True, False])
def test_the_server_is_killed_while_versions_change(boxes: Callable[..., Box], by_server: bool) -> None:
    """At any point of an update. Workers and engine go on; the next server continues."""
    box = boxes()
    draws = random.Random(7)
    url = f"{box.lab.http.base_url}/v1/chat/completions"
    with streaming(url, box.body, clients=8) as clients:
        for turn in range(1, 7):
            box.write(turn % VERSIONS)
            before = set(box.served())
            command = box.applying(by_server=by_server)
            if turn % 2:  # while the new version is there, or has just taken over
                command = box.until_it_changes(command, before, by_server=by_server)
            else:
                time.sleep(draws.uniform(0.3, 1.2))
            box.lab.kill()
            if turn % 3:
                command.kill()
            command.communicate(timeout=SECONDS)
            box.lab.start()
        box.write(1)
        box.apply()
        applied = time.monotonic()
        wait_for(lambda: len(clients.since(applied)) >= 8, SECONDS, "answers")
        assert {one.text for one in clients.since(applied)} == {box.texts[1]}
    box.check(clients)
    wait_for(lambda: len(box.served()) == 1, SECONDS, "no version is left behind")


def test_without_a_free_slot_requests_wait_for_a_moment(boxes: Callable[..., Box]) -> None:
    box = boxes()
    text = box.path.read_text().replace("engine: sim,", "engine: sim, max_loras: 1,")
    box.path.write_text(text)
    box.apply()  # restarts the engine
    wait_for(lambda: box.lab.http.post("/v1/chat/completions", json=box.body).is_success, SECONDS, "answers again")
    url = f"{box.lab.http.base_url}/v1/chat/completions"
    with streaming(url, box.body, clients=8) as clients:
        for version in (1, 2):
            box.write(version)
            box.apply()
            applied = time.monotonic()
            wait_for(lambda since=applied: len(clients.since(since)) >= 8, SECONDS, "answers")  # type: ignore[misc]
            assert {one.text for one in clients.since(applied)} == {box.texts[version]}
            assert len(box.served()) == 1
    box.check(clients)
