"""Instances as people see them, at 80 columns and in a pipe."""

from datetime import UTC, datetime
from typing import Any

import pytest
from rendered import in_a_pipe, on_a_terminal

from garrison.cli.server.running import _row
from garrison.cli.server.views.explained import show_explained
from garrison.cli.server.views.instances import show_instance, show_instances
from garrison.cli.server.views.instances_watch import InstancesWatch
from garrison.cli.server.views.ps import show_runs
from garrison.cli.server.views.server import ServerView, states_text
from garrison.cli.views.page import Page
from garrison.engines.llama_router import RouterModel
from garrison.store.records import Event

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def instance(name: str = "qwen", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": "running",
        "since": "2026-01-02T11:57:00+00:00",
        "reason": "ready",
        "port": 8100,
        "pid": 17,
        "memory": {"GPU-1": 15 * 2**30},
        "requests": 2,
        "waiting": 0,
        "node": "main",
        "options": {"backend_type": "vllm", "backend_options": {"model": "Qwen/Qwen2.5-7B-Instruct"}},
        **fields,
    }


MANY = [
    instance("a-very-long-name-of-an-instance-that-somebody-chose", waiting=12),
    instance("failed", state="failed", reason="vLLM exited with 1 before it was ready: no kernel for this GPU " * 2),
    instance("path", options={"backend_type": "llama_cpp", "backend_options": {"model": "/models/org/name/q4.gguf"}}),
    instance("asleep", state="stopped", port=None, memory={}, requests=0),
]


def test_80_columns() -> None:
    text = on_a_terminal(lambda page: show_instances(page, MANY, NOW))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    title = lines[0].split()
    assert title == ["name", "state", "since", "engine", "model", "port", "memory", "requests"]
    assert "…" in lines[1]
    assert "2+12" in lines[1]
    assert "3 m" in lines[1]
    assert "15.0 GiB" in lines[1]
    assert any(line.startswith("  └ vLLM exited with 1") for line in lines), "why it failed is below its row"
    assert "q4.gguf" in text, "of a path the end is kept"


def test_a_pipe_cuts_nothing_and_has_one_line_each() -> None:
    lines = in_a_pipe(lambda page: show_instances(page, MANY, NOW)).splitlines()
    assert len(lines) == 1 + len(MANY)
    assert MANY[0]["name"] in lines[1]
    assert "/models/org/name/q4.gguf" in lines[3]
    assert lines[4].split() == ["asleep", "stopped", "3", "m", "vllm", "Qwen/Qwen2.5-7B-Instruct", "–", "–", "0"]


def test_names_cannot_move_the_cursor() -> None:
    hostile = instance("x", options={"backend_type": "vllm", "backend_options": {"model": "a\x1b[2Jb\nc"}})
    for text in (
        in_a_pipe(lambda page: show_instances(page, [hostile], NOW)),
        in_a_pipe(lambda page: show_instance(page, hostile, NOW)),
    ):
        assert "\x1b" not in text
        assert "a�[2Jb c" in text


def test_other_nodes_have_a_column() -> None:
    found = [instance("a"), instance("b", node="edge", node_state="unreachable")]
    lines = in_a_pipe(lambda page: show_instances(page, found, NOW)).splitlines()
    assert lines[0].split()[:2] == ["name", "node"]
    assert "edge (unreachable)" in lines[2]
    assert "(" not in lines[1]


def test_none() -> None:
    assert "garrison instance create" in in_a_pipe(lambda page: show_instances(page, [], NOW))
    assert "garrison serve" in in_a_pipe(lambda page: show_runs(page, [], NOW))


def test_what_runs_without_a_model() -> None:
    none: dict[str, Any] = {"since": None, "port": None, "memory_bytes": None}
    rows = [
        {"name": name, "kind": "instance", "state": "ready", "engine": "sim", "model": model} | none
        for name, model in (("a7", ""), ("a8", None))
    ]
    lines = in_a_pipe(lambda page: show_runs(page, rows, NOW)).splitlines()[1:]
    assert [line.split()[-3:] for line in lines] == [["–"] * 3] * 2
    assert _row({"name": "a7", "state": "ready", "options": {"backend_options": {"model": ""}}})["model"] is None


def test_secrets_of_an_instance_are_not_shown() -> None:
    found = instance()
    found["options"] |= {"environment": {"HF_TOKEN": "hf_verysecret", "OMP_NUM_THREADS": "4"}, "idle_timeout": 30}
    text = in_a_pipe(lambda page: show_instance(page, found, NOW))
    assert "hf_verysecret" not in text
    assert "HF_TOKEN=" in text
    assert "OMP_NUM_THREADS=4" in text
    assert "stopped after 30 m without requests" in text


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"verdict": "fits", "text": "22 GiB free", "devices": ["GPU-1"]}, ["✓ fits", "22 GiB free", "GPU-1"]),
        ({"verdict": "evicts", "text": "b is idle", "evicts": ["b"], "drains": []}, ["makes room", "stops", "b"]),
        ({"verdict": "waits", "text": "busy", "seconds": 12.0}, ["waits", "about 12 s"]),
        ({"verdict": "never", "text": "needs 80 GiB"}, ["can never fit", "needs 80 GiB"]),
    ],
)
def test_a_decision(found: dict[str, Any], words: list[str]) -> None:
    text = in_a_pipe(lambda page: show_explained(page, "a", found))
    for word in words:
        assert word in text


def step(name: str, state: str, reason: str) -> Event:
    return Event(
        at=NOW, kind=f"instance_{state}", subject_kind="instance", subject_name=name, after={"reason": reason},
    )  # fmt: skip


def test_what_up_shows(capsys: pytest.CaptureFixture[str]) -> None:
    view = ServerView()
    view.note("ready on http://127.0.0.1:8080")
    view.started(["running", "stopped", "stopped"])
    view.event(step("a", "starting", "waiting for room"))
    view.missed(3)
    view.ended(["a", "b"])
    view.end()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "garrison  ready on http://127.0.0.1:8080"
    assert lines[1] == "· 3 instances: 1 running, 2 stopped"
    assert lines[3] == "12:00:00  a  starting  waiting for room"
    assert "3 events" in lines[4]
    assert lines[5] == "garrison  ended; 2 instances go on serving: a, b"
    assert any("garrison down --all" in line for line in lines)


def test_a_server_without_instances() -> None:
    assert "garrison instance create" in states_text([])


def test_watching_in_a_pipe() -> None:
    def show(page: Page) -> None:
        view = InstancesWatch(json=False, page=page)
        view.snapshot([instance("a")])
        data = {"at": "2026-01-02T12:00:00+00:00", "subject": {"name": "a"}, "after": {"reason": "idle"}}
        view.event("instance_draining", data, lambda: pytest.fail("a pipe reads nothing again"))
        view.end()

    lines = in_a_pipe(show).splitlines()
    assert lines[1].startswith("a ")
    assert lines[2] == "12:00:00  a  draining  idle"


def test_a_router_and_its_models() -> None:
    options = {"backend_type": "llama_cpp", "backend_options": {}, "preset_ini": "[one]\n[org/two]\n"}
    models = [RouterModel("one", "loaded"), RouterModel("org/two", "failed", reason="no memory"), RouterModel("three")]
    runs = instance(options=options, models=[one.to_json() for one in models])
    assert " a router " in in_a_pipe(lambda page: show_instances(page, [runs], NOW))
    shown = in_a_pipe(lambda page: show_instance(page, runs, NOW))
    assert "models      one (loaded), org/two (failed: no memory), three (unloaded)\n" in shown
    assert "models  " not in in_a_pipe(lambda page: show_instance(page, instance(), NOW))
