"""What a manifest says about a route, on a real server: parameters, aliases, lines, times, names beneath it."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server_lab import Labs, ServerLab, chat_body, lines_of, wait_for

pytestmark = pytest.mark.system

MANIFEST = """\
stack: box
instances:
  tiny: {{model: {model}, engine: sim, served_model_name: tiny-model, idle: never, on_demand: true, options: {options}}}
routes:
"""


def applied(lab: ServerLab, tmp_path: Path, model: Path, routes: str, **options: Any) -> None:
    path = tmp_path / "garrison.yaml"
    path.write_text(MANIFEST.format(model=model, options=json.dumps(options)) + routes)
    argv = [sys.executable, "-m", "garrison.cli.main", "apply", str(path), "--yes"]
    done = subprocess.run(argv, env=lab.environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 31), done.stdout + done.stderr


@pytest.fixture
def boxes(labs: Labs, tmp_path: Path, tiny_model: Path) -> Callable[..., ServerLab]:
    def make(routes: str, options: dict[str, Any] | None = None, **settings: str) -> ServerLab:
        lab = labs(**settings)
        lab.start()
        applied(lab, tmp_path, tiny_model, routes, **(options or {}))
        return lab

    return make


def test_a_route_of_the_name_of_its_instance_changes_parameters(boxes: Callable[..., ServerLab]) -> None:
    lab = boxes(
        "  tiny: {to: tiny, set: {max_tokens: 3}, strip: [stop], aliases: {tiny-long: {set: {max_tokens: 6}}}}\n"
    )
    assert lab.chat("tiny", most=50, ignore_eos=True).json()["usage"]["completion_tokens"] == 3
    assert lab.chat("tiny-long", most=50, ignore_eos=True).json()["usage"]["completion_tokens"] == 6
    names = [one["id"] for one in lab.http.get("/v1/models").json()["data"]]
    assert names == ["tiny", "tiny-long"]
    assert lab.http.post("/v1/chat/completions", json=chat_body("tiny/sql", 2)).status_code == 404
    beneath = lab.http.post("/v1/chat/completions", json=chat_body("tiny/tiny-model", 50, ignore_eos=True))
    assert beneath.json()["usage"]["completion_tokens"] == 50, "what is beneath the name is the instance itself"


def test_a_line_of_a_real_server(boxes: Callable[..., ServerLab]) -> None:
    lab = boxes("  r: {to: tiny, limits: {concurrent: 1}, queue: {length: 1, busy: 20s}}\n", {"tokens_per_second": 40})
    assert lab.chat("r", most=1).is_success
    found: list[Any] = []

    def ask() -> None:
        found.append(lab.http.post("/v1/chat/completions", json=chat_body("r", 60)))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert sorted(one.status_code for one in found) == [200, 200, 429]
    waited = [told for one in found if (told := one.headers.get("x-garrison-queue"))]
    assert len(waited) == 1
    assert waited[0].startswith("position=1, busy=")
    refused = next(one for one in found if one.status_code == 429)
    assert (refused.json()["error"]["code"], "retry-after" in refused.headers) == ("busy", True)


def test_a_stream_is_told_where_the_start_of_its_model_is(boxes: Callable[..., ServerLab]) -> None:
    lab = boxes("  r: {to: tiny}\n", {"startup_delay": 4}, loading_comments="0.5")
    body = chat_body("r", 3, stream=True)
    with lab.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        lines = list(lines_of(answer))
    comments = [one for one in lines if one.startswith(":")]
    assert len(comments) >= 3, lines
    assert any("weights" in one or "load" in one for one in comments), comments
    assert lines[-1] == "data: [DONE]"
    assert any('"delta"' in one for one in lines)


def test_a_route_waits_as_long_as_it_says(boxes: Callable[..., ServerLab]) -> None:
    lab = boxes("  r: {to: tiny, queue: {loading: 1s}}\n  s: {to: tiny, queue: {loading: 1m}}\n", {"startup_delay": 5},
                on_demand_start_timeout="0.5")  # fmt: skip
    answer = lab.chat("r")
    assert (answer.status_code, "loading" in answer.json()) == (503, True), answer.text
    assert answer.json()["loading"]["state"] == "starting"
    assert lab.chat("s").is_success, "longer than the setting"
    wait_for(lambda: lab.instance("tiny")["requests"] == 0, 5, "everything was given back")


def test_a_route_is_in_effect_when_apply_returns(
    boxes: Callable[..., ServerLab], tmp_path: Path, tiny_model: Path
) -> None:
    lab = boxes("  r: {to: tiny, set: {max_tokens: 1}}\n")
    for most in (2, 3, 4, 5):
        applied(lab, tmp_path, tiny_model, f"  r: {{to: tiny, set: {{max_tokens: {most}}}}}\n")
        assert lab.chat("r", most=50, ignore_eos=True).json()["usage"]["completion_tokens"] == most
