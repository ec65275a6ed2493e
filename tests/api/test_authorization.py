"""Every route and every class of key: who gets in, who is asked for a key, who is refused."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from served_api import ServedApi, client_of

from garrison.access.changes import KeyChange, NewKey
from garrison.access.permissions import Grants, Permissions, Scope

OPEN = {"/healthz", "/readyz"}
CONFIG_KEY = "a-key-from-the-settings"
MANAGES = {"manage", "config", "owner"}
READS = MANAGES | {"read"}
UNKNOWN = {"none", "wrong", "expired", "disabled", "rotated"}
CLASSES = READS | UNKNOWN | {"inference", "limited"}


class Guarded(ServedApi):
    """An application with one key of each class."""

    async def issue(self) -> dict[str, str]:
        scopes = {
            "inference": Permissions(frozenset({Scope.INFERENCE})),
            "limited": Permissions(frozenset({Scope.INFERENCE}), Grants(frozenset({"a"}))),
            "read": Permissions(frozenset({Scope.READ})),
            "manage": Permissions(frozenset({Scope.MANAGE})),
        }
        found = {"none": "", "wrong": "grs-nope", "config": CONFIG_KEY, "owner": ""}
        for name, held in scopes.items():
            found[name] = (await self.keys.create_key(NewKey(name=name, permissions=held))).token
        manage = scopes["manage"]
        soon = self.clock.now() + timedelta(seconds=1)
        found["expired"] = (await self.keys.create_key(NewKey(name="x", permissions=manage, expires_at=soon))).token
        self.clock.advance(2)
        off = await self.keys.create_key(NewKey(name="off", permissions=manage))
        await self.keys.update_key(off.key.id, KeyChange(enabled=False))
        found["disabled"] = off.token
        old = await self.keys.create_key(NewKey(name="old", permissions=manage))
        await self.keys.rotate_key(old.key.id)
        found["rotated"] = old.token
        return found


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    made = Guarded(
        tmp_path, require_management_auth=True, require_inference_auth=True, management_keys=(CONFIG_KEY,)
    )  # fmt: skip
    await made.startup()
    yield made
    await made.shutdown()


def routes(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method in ("get", "post", "put", "patch", "delete")
    ]


async def test_every_route_and_every_class_of_key(guarded: Guarded) -> None:
    tokens = await guarded.issue()
    assert set(tokens) == CLASSES
    every = routes(guarded.app.openapi())
    assert len(every) > 30
    wrong = []
    for method, template in every:
        path = template.replace("{name}", "a").replace("{id}", "999").replace("{job_id}", "x")
        for name, token in tokens.items():
            status = await status_of(guarded, method, path, name, token)
            wrong += [] if status_is_right(method, template, name, status) else [(method, template, name, status)]
    assert wrong == []


async def status_of(guarded: Guarded, method: str, path: str, name: str, token: str) -> int:
    """The status of an answer, without its body: event streams do not end."""
    if path.endswith("/shutdown") and name in MANAGES:
        return 202
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", b"2")]
    headers += [(b"authorization", f"Bearer {token}".encode())] if token else []
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": headers, "client": ("10.0.0.9", 1), "scheme": "http", "server": ("127.0.0.1", 8080),
        "http_version": "1.1", "asgi": {"version": "3.0"}, "garrison.local": name == "owner",
    }  # fmt: skip
    status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    bodies = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def receive() -> dict[str, Any]:
        return bodies.pop() if bodies else await asyncio.Event().wait()  # type: ignore[return-value]  # it never does

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and not status.done():
            status.set_result(message["status"])

    call = asyncio.create_task(guarded.asgi(scope, receive, send))
    found = await asyncio.wait_for(status, 20)
    call.cancel()
    await asyncio.wait([call])
    return found


def status_is_right(method: str, path: str, name: str, status: int) -> bool:
    if path in OPEN:
        return status == 200
    if name in UNKNOWN:
        return status == 401
    reads = method == "GET" and not path.startswith("/api/v1/captures/")  # what others wrote to models
    allowed = READS if reads else MANAGES
    return status not in (401, 403) if name in allowed else status == 403


@pytest.mark.parametrize("path", ["/", "/nope", "/api/v1/openapi.json", "/api/v1/nope", "/ui/", "/metrics"])
async def test_what_is_not_a_route_needs_a_key_too(guarded: Guarded, path: str) -> None:
    assert (await guarded.client.get(path)).status_code == 401


async def test_where_a_key_is_looked_for(guarded: Guarded) -> None:
    basic = base64.b64encode(f"anybody:{CONFIG_KEY}".encode()).decode()
    for headers in (
        {"Authorization": f"Bearer {CONFIG_KEY}"},
        {"X-API-Key": CONFIG_KEY},
        {"Authorization": f"Basic {basic}"},
    ):
        assert (await guarded.client.get("/api/v1/version", headers=headers)).status_code == 200
    refused = await guarded.client.get(f"/api/v1/version?api_key={CONFIG_KEY}")
    assert refused.status_code == 401
    assert refused.json()["error"] == "unauthenticated"
    assert refused.headers["www-authenticate"].startswith("Bearer")


async def test_calls_that_change_something_are_recorded(guarded: Guarded) -> None:
    manager = {"Authorization": f"Bearer {CONFIG_KEY}", "X-Request-ID": "r1"}
    options = {
        "backend_type": "vllm",
        "backend_options": {"model": "m"},
        "environment": {"HF_TOKEN": "hf_secret_value"},
    }
    await guarded.client.post("/api/v1/instances/a", json=options, headers=manager)
    await guarded.client.patch("/api/v1/instances/a", json={"idle_timeout": 7}, headers=manager)
    await guarded.client.post("/api/v1/instances/nope/start", headers=manager)
    await guarded.client.post("/api/v1/llama-cpp/nope/models/org%2Fm/load", headers=manager)
    await guarded.client.delete("/api/v1/instances/a", headers=manager)
    found = (await guarded.client.get("/api/v1/audit", headers=manager)).json()
    assert [(one["action"], one["subject_name"], one["status"], one["code"]) for one in found] == [
        ("instances.delete", "a", 204, "ok"),
        ("instances.load", "nope", 404, "not-found"),
        ("instances.start", "nope", 404, "not-found"),
        ("instances.update", "a", 200, "ok"),
        ("instances.create", "a", 201, "ok"),
    ]
    assert {one["who"] for one in found} == {"config"}
    assert found[0]["request_id"] == "r1"
    assert found[3]["before"]["idle_timeout"] == 30
    assert found[3]["after"]["idle_timeout"] == 7
    assert "hf_secret_value" not in str(found)


async def test_pages_of_other_origins_and_names_that_are_not_ours(guarded: Guarded) -> None:
    key = {"Authorization": f"Bearer {CONFIG_KEY}"}
    for extra in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}):
        answer = await guarded.client.get("/api/v1/version", headers=key | extra)
        assert (answer.status_code, answer.json()["error"]) == (403, "denied"), extra
    for extra in ({"Origin": "http://127.0.0.1:8080"}, {"Host": "localhost:1"}, {"Host": "[::1]:8080"}):
        assert (await guarded.client.get("/api/v1/version", headers=key | extra)).status_code == 200, extra
    form = await guarded.client.post("/api/v1/instances/a", data={"a": "1"}, headers=key)
    assert form.status_code == 415


async def test_a_client_of_another_network(guarded: Guarded) -> None:
    async with client_of(guarded.asgi, **{"X-Forwarded-For": "127.0.0.1"}) as stranger:
        assert (await stranger.get("/api/v1/instances")).status_code == 401
