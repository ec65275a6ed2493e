"""Adapters on demand of a real server: more of them than slots, and each request is answered by its own."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import tiny_model as maker
from server_lab import Labs, ServerLab, chat_body, lines_of, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SLOTS = 2
NAMES = ("a", "b", "c", "d")
MANIFEST = """\
stack: box
instances:
  qwen: {{model: {model}, engine: sim, idle: never, max_loras: {slots}, options: {{tokens-per-second: 200}}}}
adapters:
{adapters}
policy: {{interval: 1s}}
"""
IDLE_SECONDS = 3.0
"""After which one that was used may make room, and a little more."""


class Box:
    """A server with one instance, and adapters on demand that it has too few slots for.

    Attributes:
        texts: what each adapter answers.
    """

    def __init__(self, lab: ServerLab, root: Path, model: Path) -> None:
        self.lab = lab
        rows = [f"  {name}: {{target: qwen, load: on_demand, lora_path: {root / name}}}" for name in (*NAMES, "broken")]
        path = root / "garrison.yaml"
        path.write_text(MANIFEST.format(model=model, slots=SLOTS, adapters="\n".join(rows)))
        for seed, name in enumerate(NAMES):
            maker.make_adapter(root / name, seed=seed)
        maker.make_adapter(root / "broken", rank=64)  # the engine takes 16 at most
        self.texts: dict[str, str] = {}
        lab.start("-f", str(path))
        wait_for(lambda: lab.http.get("/api/v1/instances/qwen").is_success, 30, "created")
        assert lab.chat("qwen").is_success
        assert self.served() == set(), "none is loaded before it is asked for"
        for name in NAMES:
            self.engine("load_lora_adapter", lora_name="reference", lora_path=str(root / name))
            self.texts[name] = text(self.ask("qwen/reference"))
            self.engine("unload_lora_adapter", lora_name="reference")
        assert len(set(self.texts.values())) == len(NAMES), "they can be told apart"

    def ask(self, name: str) -> httpx2.Response:
        return self.lab.chat(name, most=12, temperature=0, seed=1)

    def check(self, name: str) -> None:
        answer = self.ask(name)
        assert answer.is_success, answer.text
        assert text(answer) == self.texts[name], f"another than {name} has answered"

    def engine(self, call: str, **body: str) -> None:
        answer = self.lab.http.post(f"/api/v1/instances/qwen/proxy/v1/{call}", json=body)
        assert answer.is_success, answer.text

    def served(self) -> set[str]:
        """The adapters that the engine has, without their versions."""
        answer = self.lab.http.get("/api/v1/instances/qwen/proxy/v1/models")
        return {one["id"].partition("@")[0] for one in answer.json()["data"] if one.get("parent")}

    @contextmanager
    def streaming(self, name: str) -> Iterator[None]:
        """A request of some ten seconds that is in progress. In the end its answer has to be whole."""
        body = chat_body(name, 2000, ignore_eos=True, stream=True)
        with self.lab.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.is_success, answer.read()
            lines = lines_of(answer)
            next(lines)
            yield
            assert list(lines)[-1] == "data: [DONE]"


@pytest.fixture
def boxes(labs: Labs, tmp_path: Path, tiny_model: Path) -> Callable[..., Box]:
    return lambda **settings: Box(labs(**settings), tmp_path, tiny_model)


def text(answer: httpx2.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_more_adapters_than_slots(boxes: Callable[..., Box], workers: str) -> None:
    box = boxes(gateway_workers=workers)
    over = threading.Event()
    most: list[set[str]] = []

    def watch() -> None:
        while not over.wait(0.05):
            most.append(box.served())

    def client(number: int) -> dict[str, int]:
        draws, asked = random.Random(number), dict.fromkeys(NAMES, 0)
        for _ in range(8):
            name = draws.choice(NAMES)
            box.check(name)
            asked[name] += 1
        return asked

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            asked = list(pool.map(client, range(8)))
    finally:
        over.set()
        watcher.join(30)
    assert all(sum(one[name] for one in asked) > SLOTS for name in NAMES)
    assert max(len(one) for one in most) == SLOTS, "it never holds more than it has slots for"


def test_the_least_recently_used_makes_room(boxes: Callable[..., Box]) -> None:
    box = boxes()
    for name in ("a", "b", "a"):
        box.check(name)
        time.sleep(1.1)  # workers tell once a second what is used
    assert box.served() == {"a", "b"}
    time.sleep(IDLE_SECONDS)
    for name, left in (("c", {"a", "c"}), ("b", {"b", "c"}), ("a", {"a", "b"})):
        box.check(name)
        assert box.served() == left
        time.sleep(IDLE_SECONDS)


def test_requests_wait_as_for_a_cold_instance(boxes: Callable[..., Box]) -> None:
    """While the others are in use: not more than `start_queue`, and not longer than `on_demand_start_timeout`."""
    box = boxes(on_demand_start_timeout="4", start_queue="2")
    box.check("a")
    box.check("b")
    with box.streaming("a"), box.streaming("b"):
        with ThreadPoolExecutor(3) as pool:
            began = time.monotonic()
            answers = sorted(pool.map(box.ask, ["c"] * 3), key=lambda one: one.elapsed)
        assert [one.status_code for one in answers] == [503] * 3
        assert all(int(one.headers["retry-after"]) >= 1 for one in answers)
        assert "2 requests wait for it already" in answers[0].text
        assert answers[0].elapsed.total_seconds() < 4, "at once"
        for one in answers[1:]:
            assert "not loaded on qwen within 4 s" in one.text
        assert 4 <= time.monotonic() - began < 20
        assert box.served() == {"a", "b"}, "what is in use stays"
        box.check("a")
    time.sleep(IDLE_SECONDS)
    box.check("c")


def test_each_waiter_is_told_why_its_adapter_cannot_be_loaded(boxes: Callable[..., Box]) -> None:
    box = boxes()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(box.ask, ["broken"] * 4))
    for one in answers:
        assert one.status_code == 503, one.text
        assert "rank" in one.json()["error"]["message"]
        assert "64" in one.json()["error"]["message"]
        assert "retry-after" in one.headers
    assert box.served() == set()
    for name in NAMES[:SLOTS]:  # it holds no slot
        box.check(name)
    assert box.served() == set(NAMES[:SLOTS])
