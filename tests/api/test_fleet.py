"""Stacks over the API: planned, confirmed by a fingerprint, applied, read; and what a stranger may refer to."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fleet_world import BASE
from served_api import ServedApi

from garrison.api.fleet import commands
from garrison.store.records import Event


def manifest(*adapters: str, **target: Any) -> dict[str, Any]:
    return {
        "stack": "lab",
        "targets": {"edge-1": {"base_url": "http://edge-1:8000", **target}},
        "adapters": {name: {"target": "edge-1", "lora_path": f"/models/{name}", "probe": False} for name in adapters},
    }


async def apply(caller: httpx2.AsyncClient, wanted: Any, **more: Any) -> httpx2.Response:
    """Plan, and apply what was planned."""
    planned = await caller.post("/api/v1/plan", json={"manifest": wanted, **more})
    assert planned.status_code == 200, planned.text
    body = {"manifest": wanted, "fingerprint": planned.json()["fingerprint"], **more}
    return await caller.post("/api/v1/apply", json=body)


async def test_a_manifest_is_planned_and_applied_by_the_plan_that_was_seen(served: ServedApi) -> None:
    planned = (await served.client.post("/api/v1/plan", json={"manifest": manifest("sql")})).json()
    assert [(one["kind"], one["name"]) for one in planned["plan"]["actions"]] == [("create", "sql")]
    assert served.fleet.edge.served == {}
    done = await apply(served.client, manifest("sql"))
    assert done.status_code == 200, done.text
    assert (done.json()["ok"], [one["state"] for one in done.json()["outcomes"]]) == (True, ["done"])
    assert list(served.fleet.edge.served) == ["sql"]


async def test_text_in_yaml_is_a_manifest_too_and_an_error_names_line_and_column(served: ServedApi) -> None:
    text = "stack: lab\ntargets:\n  edge-1: {base_url: 'http://edge-1:8000'}\n"
    assert (await apply(served.client, text)).status_code == 200
    wrong = await served.client.post("/api/v1/plan", json={"manifest": text + "adaptors: {}\n"})
    assert wrong.status_code == 422
    assert "4:1" in wrong.json()["details"]
    assert "adaptors" in wrong.json()["details"]


async def test_without_the_fingerprint_nothing_is_done_and_the_plan_is_in_the_answer(served: ServedApi) -> None:
    for body in ({}, {"fingerprint": "another"}):
        refused = await served.client.post("/api/v1/apply", json={"manifest": manifest("sql"), **body})
        assert refused.status_code == 409
        assert refused.json()["error"] == "conflict"
        assert refused.json()["plan"]["actions"][0]["name"] == "sql"
        assert refused.json()["plan"]["fingerprint"] == refused.json()["fingerprint"]
        assert served.fleet.edge.served == {}
    body = {"manifest": manifest("sql"), "fingerprint": refused.json()["fingerprint"]}
    assert (await served.client.post("/api/v1/apply", json=body)).json()["ok"]


async def test_simulate_changes_nothing(served: ServedApi) -> None:
    done = await served.client.post("/api/v1/apply", json={"manifest": manifest("sql"), "simulate": True})
    assert done.json()["plan"]["actions"][0]["kind"] == "create"
    assert served.fleet.edge.served == {}
    assert (await served.client.get("/api/v1/stacks")).json() == []


async def test_a_patch_adds_and_removes_nothing(served: ServedApi) -> None:
    await apply(served.client, manifest("sql"))
    await apply(served.client, manifest("chat"), mode="patch")
    assert sorted(served.fleet.edge.served) == ["chat", "sql"]
    await apply(served.client, manifest("chat"))
    assert sorted(served.fleet.edge.served) == ["chat"]


async def test_an_apply_goes_on_when_its_caller_leaves(served: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = await served.client.post("/api/v1/plan", json={"manifest": manifest("sql")})
    body = {"manifest": manifest("sql"), "fingerprint": planned.json()["fingerprint"]}
    gate, carry_out = asyncio.Event(), served.commands.operations.apply

    async def held(*arguments: Any, **named: Any) -> Any:
        await gate.wait()
        return await carry_out(*arguments, **named)

    monkeypatch.setattr(served.commands.operations, "apply", held)
    task = asyncio.create_task(served.client.post("/api/v1/apply", json=body))
    while not served.commands._changes:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert served.fleet.edge.served == {}
    gate.set()
    async with asyncio.timeout(10):
        while served.commands._changes:
            await asyncio.sleep(0.01)
    assert list(served.fleet.edge.served) == ["sql"]


async def test_a_change_has_a_deadline_and_goes_on_after_it(served: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = await served.client.post("/api/v1/plan", json={"manifest": manifest("sql")})
    monkeypatch.setattr(commands, "_CHANGE_SECONDS", 0.0)
    body = {"manifest": manifest("sql"), "fingerprint": planned.json()["fingerprint"]}
    late = await served.client.post("/api/v1/apply", json=body)
    assert (late.status_code, late.headers["retry-after"]) == (503, "10")
    async with asyncio.timeout(10):
        while served.commands._changes:
            await asyncio.sleep(0.01)
    assert list(served.fleet.edge.served) == ["sql"]


async def test_a_server_that_ends_begins_no_change(served: ServedApi) -> None:
    planned = await served.client.post("/api/v1/plan", json={"manifest": manifest("sql")})
    served.commands.request_stop()
    body = {"manifest": manifest("sql"), "fingerprint": planned.json()["fingerprint"]}
    assert (await served.client.post("/api/v1/apply", json=body)).status_code == 503
    assert served.fleet.edge.served == {}


async def test_what_is_on_record_is_read(served: ServedApi) -> None:
    await apply(served.client, manifest("sql", "chat"))
    get = served.client.get
    assert [one["name"] for one in (await get("/api/v1/stacks")).json()] == ["lab"]
    stack = (await get("/api/v1/stacks/lab")).json()
    assert [one["name"] for one in stack["status"]["stacks"][0]["adapters"]] == ["chat", "sql"]
    assert [one["name"] for one in (await get("/api/v1/targets")).json()] == ["edge-1"]
    rows = await get("/api/v1/inventory/adapters", params={"query": "name:s*"})
    assert [one["name"] for one in rows.json()] == ["sql"]
    page = await get("/api/v1/inventory/adapters", params={"limit": 1, "offset": 1})
    assert ([one["name"] for one in page.json()], page.headers["x-total-count"]) == (["sql"], "2")
    assert (rows.headers["x-total-count"], rows.headers["x-on-record"], rows.headers["x-targets"]) == ("1", "2", "1")
    wrong = await get("/api/v1/inventory/adapters", params={"query": "nme:x"})
    assert (wrong.status_code, wrong.json()["error"]) == (422, "usage")
    assert (await get("/api/v1/inventory/nothing")).status_code == 422


async def test_the_status_is_as_last_seen_or_as_it_is_now(served: ServedApi) -> None:
    await apply(served.client, manifest("sql"))
    await apply(served.client, {"stack": "other"})
    served.fleet.edge.served.clear()
    states = {}
    for look in (False, True):
        found = (await served.client.get("/api/v1/status", params={"look": look})).json()
        assert [one["name"] for one in found["stacks"]] == ["lab", "other"]
        assert found["cached"] is not look
        states[look] = found["stacks"][0]["adapters"][0]["state"]
    assert states == {False: "served", True: "missing"}
    one = (await served.client.get("/api/v1/status", params={"stack": "other"})).json()
    assert ([each["name"] for each in one["stacks"]], one["targets"]) == (["other"], [])
    assert (await served.client.get("/api/v1/status", params={"stack": "none"})).status_code == 404


async def test_drift_is_what_was_changed_behind_our_back(served: ServedApi) -> None:
    await apply(served.client, manifest("sql"))
    assert (await served.client.get("/api/v1/drift")).json() == {"checked": 1, "drift": [], "unknown": {}}
    served.fleet.edge.served.clear()
    found = (await served.client.get("/api/v1/drift", params={"stack": "lab"})).json()
    assert [(one["kind"], one["name"]) for one in found["drift"]] == [("missing", "sql")]


async def test_history_is_read_page_by_page(served: ServedApi) -> None:
    await apply(served.client, manifest("sql", "chat", "code"))
    every = (await served.client.get("/api/v1/history", params={"limit": 1000})).json()
    assert len(every) > 3
    seen: list[dict[str, Any]] = []
    url = "/api/v1/history?after=0&limit=2"
    while url:
        page = await served.client.get(url)
        assert len(page.json()) <= 2
        seen += page.json()
        link = page.headers.get("link", "")
        url = "/api/v1/history" + link[1 : link.index(">")] if link else ""
    assert seen == every
    loaded = (await served.client.get("/api/v1/history", params={"kind": "applied"})).json()
    assert {one["kind"] for one in loaded} == {"applied"}
    done = (await served.client.get("/api/v1/history", params={"kind": "action-done", "name": "sql"})).json()
    assert [(one["target"], one["name"], one["command"]) for one in done] == [("edge-1", "sql", loaded[0]["command"])]


async def test_a_stack_is_destroyed_by_the_plan_that_was_seen(served: ServedApi) -> None:
    await apply(served.client, manifest("sql"))
    refused = await served.client.post("/api/v1/stacks/lab/destroy", json={})
    assert refused.status_code == 409
    assert list(served.fleet.edge.served) == ["sql"]
    body = {"fingerprint": refused.json()["fingerprint"]}
    done = await served.client.post("/api/v1/stacks/lab/destroy", json=body)
    assert (done.status_code, done.json()["destroyed"]) == (200, True)
    assert served.fleet.edge.served == {}
    for path, verb in (("/api/v1/stacks/lab", "GET"), ("/api/v1/stacks/lab/destroy", "POST")):
        gone = await served.client.request(verb, path, json={} if verb == "POST" else None)
        assert (gone.status_code, gone.json()["error"]) == (404, "not-found")


async def test_an_adapter_of_others_is_adopted_after_it_was_shown(served: ServedApi) -> None:
    await apply(served.client, manifest())
    served.fleet.edge.served["theirs"] = "/models/theirs"
    shown = await served.client.post("/api/v1/stacks/lab/adopt", json={"names": ["theirs"]})
    assert shown.status_code == 409
    assert [one["lora_name"] for one in shown.json()["addition"]["adapters"]] == ["theirs"]
    body = {"names": ["theirs"], "fingerprint": shown.json()["fingerprint"]}
    done = await served.client.post("/api/v1/stacks/lab/adopt", json=body)
    assert [one["name"] for one in done.json()["adopted"]] == ["theirs"]
    both = await served.client.post("/api/v1/stacks/lab/adopt", json={"names": ["a"], "query": "name:a"})
    assert both.status_code == 422


async def test_a_target_is_forgotten_after_its_loss_was_shown(served: ServedApi) -> None:
    await apply(served.client, manifest("sql"))
    reachable = await served.client.post("/api/v1/targets/edge-1/forget", json={})
    assert (reachable.status_code, reachable.json()["error"]) == (422, "invalid")
    shown = await served.client.post("/api/v1/targets/edge-1/forget", json={"force": True})
    assert (shown.status_code, shown.json()["adapters"]) == (409, [{"stack": "lab", "name": "sql"}])
    body = {"force": True, "fingerprint": shown.json()["fingerprint"]}
    assert (await served.client.post("/api/v1/targets/edge-1/forget", json=body)).json()["forgotten"]
    gone = await served.client.post("/api/v1/targets/edge-1/forget", json=body)
    assert gone.status_code == 404


# What a manifest may refer to

REFERENCES = {
    "variable": {"api_key": {"env": "PASSWORD"}},
    "file": {"api_key": {"file": "/etc/shadow"}},
    "command": {"api_key": {"command": ["cat", "/etc/shadow"]}},
    "header": {"headers": {"x-token": {"env": "PASSWORD"}}},
    "certificate": {"tls": {"ca": "/etc/ssl/private/x.pem"}},
    "client key": {"tls": {"cert": "/a.pem", "key": "/b.pem"}},
    "directory that is written": {"adapter_store": "/etc/cron.d"},
}


@pytest.mark.parametrize("what", REFERENCES)
async def test_a_stranger_refers_to_nothing_of_the_server(served: ServedApi, what: str) -> None:
    body = {"manifest": manifest(**REFERENCES[what])}
    for path in ("/api/v1/plan", "/api/v1/apply"):
        refused = await served.client.post(path, json=body)
        assert (refused.status_code, refused.json()["error"]) == (403, "denied"), refused.text
        assert "targets.edge-1." in refused.json()["details"]


@pytest.mark.parametrize("hook", [{"command": ["/bin/id"]}, {"url": {"env": "PASSWORD"}}])
async def test_a_stranger_has_no_command_run_and_no_hook_to_a_secret(served: ServedApi, hook: dict[str, Any]) -> None:
    body = {"manifest": manifest() | {"hooks": [{"on": ["drift"], **hook}]}}
    refused = await served.client.post("/api/v1/plan", json=body)
    assert (refused.status_code, refused.json()["error"]) == (403, "denied")


async def test_the_variables_of_the_server_are_no_strangers(served: ServedApi) -> None:
    served.environ = {"PASSWORD": "hunter2-hunter2", "HOME": "/root"}
    served.services.environ = served.environ
    body = {"manifest": manifest(base_model="${PASSWORD}")}
    refused = await served.client.post("/api/v1/plan", json=body)
    assert refused.status_code == 422
    assert "not set" in refused.json()["details"]
    assert "hunter2" not in refused.text
    shown = await served.client.post("/api/v1/plan", json={"manifest": manifest(base_model="${PASSWORD:-acme/tiny}")})
    assert shown.status_code == 200


@pytest.mark.parametrize("path", ["./sql", "../sql", "../" * 60 + "etc"])
async def test_paths_are_relative_to_nothing(served: ServedApi, path: str) -> None:
    wanted = manifest("sql")
    wanted["adapters"]["sql"]["lora_path"] = path
    for caller in (served.client, served.owner):
        refused = await caller.post("/api/v1/plan", json={"manifest": wanted})
        if path.count("../") < 50:
            assert (refused.status_code, refused.json()["error"]) == (422, "invalid")
            assert "adapters.sql.lora_path" in refused.json()["details"]


async def test_only_the_owner_says_what_paths_are_relative_to(served: ServedApi, tmp_path: Path) -> None:
    wanted = manifest("sql")
    wanted["adapters"]["sql"]["lora_path"] = "./sql"
    body = {"manifest": wanted, "directory": str(tmp_path)}
    assert (await served.client.post("/api/v1/plan", json=body)).status_code == 403
    assert (await apply(served.owner, wanted, directory=str(tmp_path))).json()["ok"]
    assert served.fleet.edge.served == {"sql": str(tmp_path / "sql")}
    assert (await served.owner.post("/api/v1/plan", json=body | {"directory": "here"})).status_code == 422


async def test_the_owner_refers_to_what_a_file_may_refer_to(served: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_KEY", "k" * 20)
    served.services.environ = {"MODEL": BASE}
    wanted = manifest("sql", api_key={"env": "EDGE_KEY"}, base_model="${MODEL}")
    assert (await apply(served.owner, wanted)).json()["ok"]
    # What is on record may be sent again by anybody: the key goes where it went before.
    again = manifest("sql", "chat", api_key={"env": "EDGE_KEY"}, base_model=BASE)
    assert (await apply(served.client, again)).json()["ok"]
    for changes in (
        {"base_url": "http://edge-9:8000"},
        {"api_key": {"env": "ANOTHER_KEY"}},
        {"headers": {"x-token": {"env": "EDGE_KEY"}}},
        {"tls": {"insecure": True}},
    ):
        other = manifest("sql", **({"api_key": {"env": "EDGE_KEY"}, "base_model": BASE} | changes))
        refused = await served.client.post("/api/v1/plan", json={"manifest": other})
        assert refused.status_code == 403, (changes, refused.text)


async def test_a_change_of_the_history_is_an_event(served: ServedApi) -> None:
    told: list[Event] = []
    served.fleet.fleet.events.listen(told.append)
    async with served.fleet.fleet.feed.running():
        await apply(served.client, manifest("sql"))
        async with asyncio.timeout(10):
            while not any(one.kind == "applied" for one in told):
                await asyncio.sleep(0.01)
