"""The calls of llama-server's router, which show, load and unload models, answered by the gateway."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from server_lab import ServerLab, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
KEY = "manager-key-that-is-long-enough-0123456789"


def statuses(lab: ServerLab) -> dict[str, Any]:
    return {one["id"]: one["status"]["value"] for one in lab.http.get("/models").json()["data"]}


def test_a_model_is_loaded_and_unloaded_and_the_feed_says_so(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model, backend_options={"startup_delay": 1})
    assert statuses(lab) == {"a": "unloaded"}
    seen: list[dict[str, Any]] = []
    opened = threading.Event()

    def watch() -> None:
        with (
            httpx2.Client(base_url=lab.http.base_url, trust_env=False) as client,
            client.stream("GET", "/models/sse") as feed,
        ):
            opened.set()
            for line in feed.iter_lines():
                if line.startswith("data: "):
                    seen.append(json.loads(line.removeprefix("data: ")))
                    if seen[-1]["event"] == "model_remove":
                        return

    watching = threading.Thread(target=watch)
    watching.start()
    assert opened.wait(10)
    assert lab.http.post("/models/load", json={"model": "a"}).json() == {"success": True}
    wait_for(lambda: statuses(lab) == {"a": "loaded"}, 20, "loaded")
    assert lab.chat("a").is_success
    assert lab.http.post("/models/unload", json={"model": "a"}).json() == {"success": True}
    wait_for(lambda: statuses(lab) == {"a": "unloaded"}, 20, "unloaded")
    lab.api("DELETE", "/instances/a", status=204)
    watching.join(20)
    told = [one["data"]["status"] for one in seen if one["event"] == "model_status"]
    steps = [one for one, before in zip(told, ["", *told], strict=False) if one != before]
    assert steps == ["loading", "loaded", "unloaded"]
    assert seen[-1] == {"model": "a", "event": "model_remove", "data": {}}


def test_what_does_not_exist_and_who_may_not(labs: Callable[..., ServerLab], tiny_model: Path) -> None:
    lab = labs(require_management_auth="1", management_keys=KEY)
    lab.start()
    lab.http.headers["Authorization"] = f"Bearer {KEY}"
    lab.create("a", tiny_model)
    assert lab.http.post("/models/load", json={"model": "b"}).status_code == 404
    assert lab.http.post("/models/load", content=b"{").status_code == 400
    with httpx2.Client(base_url=lab.http.base_url, trust_env=False) as stranger:
        assert stranger.post("/models/load", json={"model": "a"}).is_success, "whoever may use it may load it"
        assert stranger.post("/models/unload", json={"model": "a"}).status_code == 401
    assert lab.http.post("/models/unload", json={"model": "a"}).is_success
    lab.api("POST", "/instances/a/stop")
