"""Declared routes of a real server: over instances and a target that it did not start, applied while it runs."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_model as maker
from server_lab import Labs, ServerLab, chat_body, wait_for
from threaded_sims import simulators

pytestmark = pytest.mark.system

MANIFEST = """\
stack: box
instances:
  tiny: {{model: {model}, engine: sim, served_model_name: tiny-model, idle: never, on_demand: true}}
  other: {{model: {model}, engine: sim, served_model_name: other-model, idle: never, on_demand: true}}
targets:
  edge: {{base_url: "{edge}", base_model: acme/edge, api_key: {{env: EDGE_KEY}}}}
  bare: {{base_url: "http://127.0.0.1:9", headers: {{x-a: b}}}}
adapters:
  sql: {{targets: [tiny, edge], lora_path: {adapter}}}
policy: {{on_drift: restore, interval: 1s}}
routes:
"""
ROUTES = """\
  gpt-4o-mini: {to: tiny}
  both: {to: [tiny, other], policy: round-robin}
  three: {to: [tiny, edge], policy: round-robin, weights: {tiny: 3}}
  sql-bot: {to: [tiny/sql, edge/sql], policy: round-robin}
"""


@pytest.fixture
def sims() -> Iterator[Callable[..., Any]]:
    with simulators() as start:
        yield start


class Box:
    """A server, the manifest, and the target beside it."""

    def __init__(self, lab: ServerLab, edge: Any, path: Path, text: str) -> None:
        self.lab, self.edge, self._path, self._text = lab, edge, path, text

    def write(self, routes: str) -> None:
        self._path.write_text(self._text + routes)

    def apply(self, routes: str) -> None:
        self.write(routes)
        argv = [sys.executable, "-m", "garrison.cli.main", "apply", str(self._path), "--yes"]
        done = subprocess.run(argv, env=self.lab.environ, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode in (0, 31), done.stdout + done.stderr

    def answered(self, model: str, count: int = 1) -> Counter[str]:
        """Which models answered."""
        found: Counter[str] = Counter()
        for _ in range(count):
            answer = self.lab.chat(model, most=2)
            assert answer.status_code == 200, (answer.status_code, answer.text)
            found[answer.json()["model"].partition("@")[0]] += 1  # without the version of an adapter
        return found

    def status(self, model: str, **more: Any) -> int:
        answer = self.lab.http.post("/v1/chat/completions", json=chat_body(model, 2), **more)
        return int(answer.status_code)


@pytest.fixture
def boxes(labs: Labs, sims: Callable[..., Any], tmp_path: Path, tiny_model: Path) -> Callable[..., Box]:
    def make(**settings: str) -> Box:
        adapter = maker.make_adapter(tmp_path / "sql")
        edge = sims(model="acme/edge", api_keys=("edge-secret",))
        lab = labs(**settings)
        lab.environ["EDGE_KEY"] = "edge-secret"
        text = MANIFEST.format(model=tiny_model, adapter=adapter, edge=edge.url)
        return Box(lab, edge, tmp_path / "garrison.yaml", text)

    return make


@pytest.fixture
def box(boxes: Callable[..., Box]) -> Box:
    made = boxes()
    made.lab.start()
    made.apply(ROUTES)
    return made


def test_aliases_weights_adapters_and_targets(box: Box) -> None:
    assert box.answered("gpt-4o-mini") == {"tiny-model": 1}, "an apply is answered at once, and wakes an instance"
    assert box.answered("other") == {"other-model": 1}
    assert box.answered("both", 6) == {"tiny-model": 3, "other-model": 3}
    assert box.answered("three", 40) == {"tiny-model": 30, "acme/edge": 10}
    assert box.answered("edge") == {"acme/edge": 1}
    assert "no request can go to a target" in box.lab.log.read_text(), "of `bare`, which has headers"
    assert box.status("bare") == 503
    wait_for(lambda: box.status("tiny/sql") == 200, 20, "the adapter is loaded")
    wait_for(lambda: box.status("edge/sql") == 200, 20, "the adapter is loaded at the target")
    assert box.answered("sql-bot", 4) == {"sql": 4}
    assert box.status("tiny/nothing") == box.status("edge/nothing") == 404, "never answered by the base"
    names = [one["id"] for one in box.lab.http.get("/v1/models").json()["data"]]
    assert {"gpt-4o-mini", "both", "three", "sql-bot", "tiny", "other", "edge"} <= set(names)
    owner = next(one for one in box.lab.http.get("/v1/models").json()["data"] if one["id"] == "both")
    assert owner["owned_by"] == "box"


def test_routes_change_without_a_restart(box: Box) -> None:
    box.apply("  both: {to: edge}\n  tiny: {to: edge}\n")
    wait_for(lambda: box.answered("both") == {"acme/edge": 1}, 3, "another target")
    assert box.answered("tiny") == {"acme/edge": 1}, "a route comes before an instance of its name"
    assert box.status("gpt-4o-mini") == 404
    box.apply("  tiny: {to: tiny}\n")
    wait_for(lambda: box.answered("tiny") == {"tiny-model": 1}, 3, "the instance")
    assert box.status("both") == 404


def test_the_other_one_answers_when_one_is_killed(box: Box) -> None:
    assert box.answered("tiny") + box.answered("other") == {"tiny-model": 1, "other-model": 1}
    assert box.answered("both", 2) == {"tiny-model": 1, "other-model": 1}
    os.kill(box.lab.instance("tiny")["pid"], signal.SIGKILL)
    found = box.answered("both", 10)
    assert found["other-model"] >= 5, found
    wait_for(lambda: box.status("tiny") == 200, 30, "it is back")
    box.edge.stop()
    assert box.answered("three", 8)["acme/edge"] == 0
    assert box.status("edge") == 502


def test_a_server_that_starts_knows_the_routes(box: Box) -> None:
    assert box.answered("tiny") + box.answered("edge") == {"tiny-model": 1, "acme/edge": 1}
    box.lab.end()
    box.lab.start()
    assert box.answered("three", 4) == {"tiny-model": 3, "acme/edge": 1}


def test_a_target_without_its_secret(boxes: Callable[..., Box]) -> None:
    box = boxes()
    del box.lab.environ["EDGE_KEY"]
    box.lab.start()
    box.apply("  r: {to: [edge, tiny]}\n")
    answer = box.lab.chat("edge")
    assert (answer.status_code, "EDGE_KEY is not set" in answer.text) == (503, True), answer.text
    assert "EDGE_KEY is not set" in box.lab.log.read_text()
    assert box.answered("r", 3) == {"tiny-model": 3}


def test_a_key_for_a_route(boxes: Callable[..., Box]) -> None:
    box = boxes(require_inference_auth="1")
    box.lab.start()
    box.apply(ROUTES)

    def key(**limits: Any) -> dict[str, str]:
        made = box.lab.api("POST", "/auth/keys", {"name": f"k{limits}", "permission_mode": "per_instance", **limits})
        return {"authorization": f"Bearer {made['key']}"}

    alias = key(models=["gpt-4o-mini"])
    assert box.status("gpt-4o-mini", headers=alias) == 200
    for name in ("tiny", "both", "edge", "tiny/sql", "gpt-4o-mini/sql"):
        assert box.status(name, headers=alias) in (403, 404), name
    instance = key(instances=["tiny"])
    assert box.status("gpt-4o-mini", headers=instance) == 200, "the only one behind it"
    for name in ("both", "three", "edge", "sql-bot", "other"):
        assert box.status(name, headers=instance) == 403, name
    assert box.status("both", headers=key(instances=["tiny", "other"])) == 200
    listed = box.lab.http.get("/v1/models", headers=alias).json()["data"]
    assert [one["id"] for one in listed] == ["gpt-4o-mini"]
