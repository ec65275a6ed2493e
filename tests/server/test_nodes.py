"""Two real servers that know each other."""

import json
import time
from pathlib import Path

import pytest
from server_lab import Labs, ServerLab, lines_of, wait_for

pytestmark = pytest.mark.system


@pytest.fixture
def pair(labs: Labs) -> tuple[ServerLab, ServerLab]:
    """`main`, which knows `edge`, and `edge`, which knows `main`."""
    main, edge = labs(node_name="main"), labs(node_name="edge")
    main.start()
    edge.start()
    main.api("POST", "/nodes/edge", {"address": f"http://127.0.0.1:{edge.port}"}, status=201)
    edge.api("POST", "/nodes/main", {"address": f"http://127.0.0.1:{main.port}"}, status=201)
    for one, other in ((main, "edge"), (edge, "main")):
        wait_for(lambda one=one, other=other: one.api("GET", f"/nodes/{other}")["state"] == "reachable", 20, "reached")
    return main, edge


def test_the_life_of_an_instance_on_another_node(pair: tuple[ServerLab, ServerLab], tiny_model: Path) -> None:
    main, edge = pair
    made = main.create("far", tiny_model, nodes=["edge"])
    assert made["node"] == "edge"
    assert edge.instance("far")["state"] == "stopped"
    wait_for(lambda: [one["name"] for one in main.api("GET", "/instances")] == ["far"], 20, "seen by main")
    assert main.chat("far").is_success, "requests are passed on"
    assert main.instance("far")["state"] == "running"
    assert main.instance("far")["node"] == "edge"
    assert "startup complete" in main.http.get("/api/v1/nodes/edge/instances/far/logs").text
    with main.http.stream("GET", "/api/v1/instances/far/logs/stream") as answer:
        assert next(lines_of(answer)).startswith("event: line")
    proxied = main.http.get("/api/v1/instances/far/proxy/v1/models")
    assert proxied.json()["data"]
    assert main.api("POST", "/instances/far/stop")["state"] == "stopped"
    assert edge.instance("far")["state"] == "stopped"
    main.api("DELETE", "/instances/far", status=204)
    assert edge.api("GET", "/instances") == []


def test_two_that_know_each_other_do_not_go_round_in_circles(
    pair: tuple[ServerLab, ServerLab], tiny_model: Path
) -> None:
    main, edge = pair
    edge.create("far", tiny_model)
    wait_for(lambda: len(main.api("GET", "/instances")) == 1, 20, "seen by main")
    time.sleep(6)
    assert len(main.api("GET", "/instances")) == 1
    assert len(edge.api("GET", "/instances")) == 1
    assert main.http.get("/api/v1/instances?local=true").json() == []
    hop = {"x-garrison-hop": "1"}
    assert main.http.get("/api/v1/instances/far", headers=hop).status_code == 404
    body = {"model": "far", "messages": []}
    assert main.http.post("/v1/chat/completions", json=body, headers=hop).status_code == 404


def test_a_node_that_is_gone_is_shown_as_such_and_slows_nothing_down(
    pair: tuple[ServerLab, ServerLab], tiny_model: Path
) -> None:
    main, edge = pair
    edge.create("far", tiny_model)
    main.create("near", tiny_model)
    wait_for(lambda: len(main.api("GET", "/instances")) == 2, 20, "seen by main")
    edge.kill()
    edge.kill_workers()
    wait_for(lambda: main.api("GET", "/nodes/edge")["state"] == "unreachable", 30, "seen to be gone")
    began = time.monotonic()
    found = {one["name"]: one for one in main.api("GET", "/instances")}
    assert time.monotonic() - began < 1
    assert found["far"]["node_state"] == "unreachable"
    assert main.api("GET", "/nodes/edge")["reason"].startswith("http://127.0.0.1:")
    refused = main.http.get("/api/v1/instances/far")
    assert refused.status_code == 504
    assert json.loads(refused.text)["error"]
    answer = main.chat("far")
    assert answer.status_code in (502, 504), answer.text  # asked in vain, or known to be out of reach
    assert main.chat("near").is_success
