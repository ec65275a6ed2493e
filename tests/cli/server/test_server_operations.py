"""The verbs over HTTP against servers that answer what a test says: too old, too new, changing, or none at all."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from plan_samples import NOW, full_plan

from garrison.api.fleet.bodies import ManifestBody
from garrison.api.fleet.sent import Sender, load_sent
from garrison.base.errors import ConflictError, GarrisonError, InvalidError, UnreachableError, UsageError
from garrison.base.settings import Settings
from garrison.cli.fleet.server_operations import ServerOperations, body_of
from garrison.cli.server import client as client_module
from garrison.cli.server.client import ServerClient
from garrison.fleet.management.requests import ApplyRequest, HistoryFilter
from garrison.fleet.manifest.load import load_declaration
from garrison.fleet.operations.apply import Applied
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.plan import Plan
from garrison.testing.views import RecordingFleetView


class Seen(RecordingFleetView):
    """A view that also keeps the plans."""

    def __init__(self) -> None:
        super().__init__()
        self.plans: list[Plan] = []

    def planned(self, plan: Plan) -> None:
        self.plans.append(plan)


REQUEST = ApplyRequest(declaration=Declaration(stack="cabinet-7"))
Work = Callable[[ServerOperations], Coroutine[Any, Any, Any]]


def answer(status: int, body: Any, **headers: str) -> tuple[int, dict[str, str], bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "application/json", **named}, json.dumps(body).encode()


@contextmanager
def operations(url: str) -> Iterator[ServerOperations]:
    with ServerClient(Settings(server_url=url)) as client:
        yield ServerOperations(client)


def do(url: str, work: Work) -> Any:
    with operations(url) as made:
        return asyncio.run(work(made))


VERBS: dict[str, Work] = {
    "plan": lambda made: made.plan(REQUEST, RecordingFleetView()),
    "apply": lambda made: made.apply(REQUEST, RecordingFleetView(), fingerprint="f"),
    "destroy": lambda made: made.destroy("cabinet-7", RecordingFleetView(), fingerprint="f"),
    "status": lambda made: made.status(RecordingFleetView()),
    "drift": lambda made: made.drift(RecordingFleetView()),
    "inventory": lambda made: made.inventory("adapters"),
    "history": lambda made: made.history(HistoryFilter()),
    "places": lambda made: made.places(["a"], stack="cabinet-7"),
}


@pytest.mark.parametrize("body", [{"a": 1}, [{"a": 1}], 7, "text", None, {"plan": {"stack": 3}}], ids=repr)
@pytest.mark.parametrize("verb", VERBS)
def test_an_answer_of_another_form_is_that_of_no_server_of_ours(strange: Any, verb: str, body: Any) -> None:
    url = strange(lambda _method, _path: answer(200, body, X_Total_Count="1"))
    with pytest.raises(UnreachableError) as raised:
        do(url, VERBS[verb])
    assert url in raised.value.message
    assert "of the same version" in (raised.value.hint or "")


def test_a_kind_that_this_program_does_not_know(strange: Any) -> None:
    body = json.loads(json.dumps({"plan": full_plan().to_json()}))
    body["plan"]["actions"][0]["kind"] = "teleport"
    with pytest.raises(UnreachableError, match="teleport"):
        do(strange(lambda _method, _path: answer(200, body)), VERBS["plan"])


@pytest.mark.parametrize("verb", VERBS)
def test_a_server_that_is_too_old(strange: Any, verb: str) -> None:
    url = strange(lambda _method, _path: answer(404, {"error": "not-found", "details": "Not Found"}))
    with pytest.raises(UnreachableError, match="it knows no"):
        do(url, VERBS[verb])


def test_a_stack_that_is_not_there_is_a_wrong_value(strange: Any) -> None:
    url = strange(lambda _method, _path: answer(404, {"error": "not-found", "details": "there is no stack 'a'"}))
    with pytest.raises(InvalidError) as raised:
        do(url, VERBS["drift"])
    assert (raised.value.code, raised.value.message) == ("invalid", "there is no stack 'a'")


# A change without a question


def conflict(number: int) -> tuple[int, dict[str, str], bytes]:
    """The plan is another one each time."""
    body = full_plan().to_json() | {"fingerprint": f"f{number}"}
    facts = {"plan": body, "fingerprint": f"f{number}", "notes": ["a", "info: b", "error: c"]}
    return answer(409, {"error": "conflict", "details": "the plan is another one", **facts})


def applied() -> tuple[int, dict[str, str], bytes]:
    return answer(200, Applied(plan=full_plan(), command="c").to_json() | {"warnings": [], "notes": ["d"]})


def test_without_a_question_the_plan_of_the_moment_is_done(strange: Any) -> None:
    calls: list[str] = []

    def reply(method: str, path: str) -> Any:
        calls.append(f"{method} {path}")
        return conflict(len(calls)) if len(calls) < 4 else applied()

    view = Seen()
    done = do(strange(reply), lambda made: made.apply(REQUEST, view))
    assert done.command == "c"
    assert calls == ["POST /api/v1/apply"] * 4
    assert [one.fingerprint for one in view.plans] == ["f1", "f2", "f3"]
    assert view.notes == ["a", "b", "c"] * 3 + ["d"]
    assert view.levels == ["warning", "info", "error"] * 3 + ["warning"]


def test_a_plan_that_never_stays_the_same_ends(strange: Any) -> None:
    calls: list[str] = []

    def reply(_method: str, path: str) -> Any:
        calls.append(path)
        return conflict(len(calls))

    with pytest.raises(ConflictError):
        do(strange(reply), lambda made: made.apply(REQUEST, RecordingFleetView()))
    assert 3 < len(calls) < 10


def test_what_was_confirmed_is_not_changed_for_another_plan(strange: Any) -> None:
    calls: list[str] = []

    def reply(_method: str, path: str) -> Any:
        calls.append(path)
        return conflict(len(calls))

    with pytest.raises(ConflictError) as raised:
        do(strange(reply), VERBS["apply"])
    assert len(calls) == 1
    assert raised.value.details["fingerprint"] == "f1"
    assert Plan.from_json(raised.value.details["plan"]).fingerprint == "f1"


def test_another_conflict_is_reported_as_it_is(strange: Any) -> None:
    url = strange(lambda _method, _path: answer(409, {"error": "conflict", "details": "stack a is held by mika"}))
    for work in (VERBS["plan"], lambda made: made.apply(REQUEST, RecordingFleetView())):
        with pytest.raises(ConflictError, match="held by mika"):
            do(url, work)


def test_a_server_that_does_what_nobody_confirmed(strange: Any) -> None:
    with pytest.raises(UnreachableError, match="nobody confirmed"):
        do(strange(lambda _method, _path: applied()), lambda made: made.apply(REQUEST, RecordingFleetView()))


# Reading


def test_rows_are_read_page_by_page(strange: Any) -> None:
    row = {
        "name": "s", "version": 1, "applied_at": NOW.isoformat(), "on_drift": "report", "ending": False,
        "targets": [], "adapters": {},
    }  # fmt: skip
    asked: list[dict[str, list[str]]] = []

    def reply(_method: str, path: str) -> Any:
        asked.append(parse_qs(urlsplit(path).query))
        page = [row, row] if asked[-1]["offset"] == ["0"] else [row]
        return answer(200, page, X_Total_Count="3", X_On_Record="9", X_Targets="4")

    found = do(strange(reply), lambda made: made.inventory("stacks", "name:s*"))
    assert (len(found.rows), found.on_record, found.targets) == (3, 9, 4)
    assert [one["offset"] for one in asked] == [["0"], ["2"]]
    assert {one["query"][0] for one in asked} == {"name:s*"}


@pytest.mark.parametrize(
    ("names", "query"), [(["b", "a c"], 'name:"a c" name:b'), ([f"n{i}" for i in range(900)], None)]
)
def test_where_targets_are(strange: Any, names: list[str], query: str | None) -> None:
    """Those of the stack, and those that another stack declares; of very many, all are asked for."""
    asked: list[str | None] = []

    def reply(_method: str, path: str) -> Any:
        asked.append(parse_qs(urlsplit(path).query).get("query", [None])[0])
        rows = ["own"] if len(asked) == 1 else [*names[:1], "of-nobody"]
        return answer(200, [{"name": one, "base_url": f"http://{one}", "insecure": False, "last_seen": None}
                            for one in rows])  # fmt: skip

    found = do(strange(reply), lambda made: made.places(["own", *names], stack="my stack"))
    assert asked == ['stack:"my stack"', query]
    assert [one.name for one in found] == ["own", names[0]]


def test_times_are_those_of_the_server(strange: Any) -> None:
    late = datetime.now(UTC) + timedelta(days=3)
    url = strange(lambda _method, _path: answer(200, [], Date=format_datetime(late, usegmt=True)))
    with operations(url) as made:
        assert abs(made.now() - late) < timedelta(seconds=30)


def test_more_events_than_a_server_returns(strange: Any) -> None:
    url = strange(lambda _method, _path: answer(200, []))
    with pytest.raises(UsageError, match="at most 10,000"):
        do(url, lambda made: made.history(HistoryFilter(), limit=10_001))
    assert do(url, lambda made: made.history(HistoryFilter(), limit=10_000)) == ()


def test_owed_actions_are_the_servers(strange: Any) -> None:
    url = strange(lambda _method, _path: applied())
    with operations(url) as made, pytest.raises(GarrisonError) as raised:
        asyncio.run(made.carry_owed("a", Applied(plan=full_plan()), RecordingFleetView(), waiting=lambda *_: None))
    assert raised.value.exit_code == 64


# Time


def test_an_answer_may_take_long_and_a_connection_may_not(strange: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_CONNECT_SECONDS", 0.3)

    def slow(_method: str, _path: str) -> Any:
        time.sleep(0.7)
        return applied()

    assert do(strange(slow), VERBS["apply"]).command == "c"
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]  # the queue is full: a connection is not answered
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="does not answer"):
            do(f"http://127.0.0.1:{full.getsockname()[1]}", VERBS["apply"])
        assert time.monotonic() - began < 10
        for one in waiting:
            one.close()


# What is sent

MANIFEST = """\
stack: box
instances:
  qwen:
    model: ./models/qwen
    engine: vllm
    options: {max-model-len: 8192, chat-template: "{{ a }} $${b}"}
    args: [--seed, "1"]
    env: {HF_HOME: "${WHERE}/hf", HF_TOKEN: {file: token}}
    on_demand: true
    idle: never
    devices: [0, 1]
    memory: 14GiB
    served_model_name: acme/tiny
  whisper:
    custom: {argv: [./server, --port, "{port}"], ready_path: /health, apis: [audio]}
    node: gpu-2
    pin: true
    weight: 0.5
targets:
  edge: {host: 10.0.0.2, port: 8000, api_key: {env: EDGE_KEY}, tls: {ca: ca.pem}, labels: {site: lab, rack: 7}}
  near: {base_url: "https://near:8443/prefix", adapter_store: ./store, timeout: 2s, probe: false}
adapters:
  sql: {targets: [qwen, edge], lora_path: ./adapters/sql}
  chat: {select: {site: lab}, lora_path: adapters/on-the-server, base_model_name: acme/base}
models:
  base: {target: edge, id: acme/base}
routes:
  gpt: {to: qwen}
  bot: {to: [qwen/sql, edge/sql], policy: random, weights: {qwen/sql: 3}}
policy: {on_drift: restore, interval: 90s}
hooks:
  - {on: [drift], url: {env: HOOK}, headers: {X-Site: lab}}
  - {on: [unreachable, recovered], command: [./tell, "a b"]}
"""


def test_what_the_server_reads_is_what_the_client_read(tmp_path: Path) -> None:
    """Its variables, paths and durations are settled here; nothing is left for the server to resolve."""
    (tmp_path / "garrison.yaml").write_text(MANIFEST)
    read = load_declaration([str(tmp_path / "garrison.yaml")], environ={"WHERE": "/srv"}).declaration
    assert read.instances["qwen"].model == str(tmp_path / "models/qwen")
    options = PlanOptions(force=True, adopt=True)
    body = json.loads(json.dumps(body_of(ApplyRequest(declaration=read, mode="patch", options=options))))
    asked = ManifestBody.model_validate(body)
    assert load_sent(asked.manifest, Sender()).declaration == read
    assert (asked.mode, asked.options) == ("patch", options)
