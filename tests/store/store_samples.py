"""Records to put into a store, each with something in every field that a test does not name."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from garrison.store.audit_store import AuditRow
from garrison.store.fleet_store import FleetStore
from garrison.store.key_store import KeyRow
from garrison.store.records import (
    ActionRecord,
    ActionResult,
    ActionState,
    AgentRecord,
    CommandRecord,
    Event,
    Holder,
    Key,
    Lease,
    Operation,
    Resource,
    StackRecord,
    TargetRecord,
)
from garrison.store.usage_store import Usage, UsageBatch, UsageRow

TYPE = "VLLM::Inference::LoRAAdapter"
START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def at(seconds: float = 0, *, days: float = 0) -> datetime:
    return START + timedelta(seconds=seconds, days=days)


def key(name: str = "sql", target: str = "edge") -> Key:
    return Key(target, TYPE, name)


def stack(name: str = "cabinet", **values: Any) -> StackRecord:
    return StackRecord(**{"name": name, "declaration": {"targets": ["edge"], "é": 1}, "at": START} | values)


def target(name: str = "edge", **values: Any) -> TargetRecord:
    spec = {"base_url": f"http://{name}:8000", "api_key": {"env": "KEY"}}
    return TargetRecord(**{"name": name, "spec": spec, "declared_at": START} | values)


def seen(name: str = "edge", *adapters: str, seconds: float = 0, **values: Any) -> TargetRecord:
    """A target whose list was believed."""
    served = tuple({"name": one, "root": f"/store/{one}", "parent": "acme/tiny"} for one in adapters)
    when = at(seconds)
    found = {"state": "reachable", "since": when, "last_seen": when, "last_checked": when, "base": "acme/tiny"}
    return target(name, **found | {"served": served, "capabilities": {"version": "0.32.0"}} | values)


def command(id: str = "c1", **values: Any) -> CommandRecord:
    plain = {"id": id, "kind": "apply", "stack": "cabinet", "started_at": START, "by": "ada@node 7", "mode": "patch"}
    return CommandRecord(**plain | values)


def action(seq: int = 0, command: str = "c1", **values: Any) -> ActionRecord:
    plain = {
        "command": command, "seq": seq, "key": key(f"a{seq}"), "label": "sql", "kind": "create", "reason": "new",
        "after": {"spec": {"lora_path": "/x"}, "served_path": "/x", "parent": None},
    }  # fmt: skip
    return ActionRecord(**plain | values)


def done(one: ActionRecord, **values: Any) -> ActionRecord:
    from dataclasses import replace

    ended = {"state": ActionState.DONE, "step": "list", "gap_ms": 4.25, "started_at": at(1), "ended_at": at(2)}
    return replace(one, **ended | values)


def resource(name: str = "sql", target: str = "edge", **values: Any) -> Resource:
    plain = {
        "key": key(name, target), "stack": "cabinet", "label": name, "operation": Operation.CREATED,
        "spec": {"lora_path": "/models/sql", "tags": ["a", 1, None, 1.5, True]}, "served_path": "/store/ab",
        "parent": "acme/tiny", "at": START, "command": None, "cause": None,
    }  # fmt: skip
    return Resource(**plain | values)


def event(kind: str = "applied", **values: Any) -> Event:
    plain = {
        "at": START, "kind": kind, "stack": "cabinet", "target": "edge", "name": "sql", "cause": "why",
        "before": {"root": "/a"}, "after": None, "command": "c1",
    }  # fmt: skip
    return Event(**plain | values)


def lease(token: str = "t1", stack: str = "cabinet", *, until: float = 30, **values: Any) -> Lease:
    holder = Holder(host="node/boot", pid=7, started=99, user="ada", purpose="apply")
    return Lease(
        **{"stack": stack, "token": token, "holder": holder, "acquired_at": START, "expires_at": at(until)} | values
    )


def an_agent(token: str = "a1", *, alive: float = 0, **values: Any) -> AgentRecord:
    holder = Holder(host="node/boot", pid=8, started=100, user="ada", purpose="agent")
    return AgentRecord(**{"token": token, "holder": holder, "since": START, "alive_at": at(alive)} | values)


def an_api_key(**values: Any) -> KeyRow:
    plain = {
        "name": "ci", "digest": "ab" * 32, "prefix": "grs-inf-3f9a2c", "secret": "s1",
        "spec": {"enabled": True, "é": [1]}, "created": START, "updated": START, "expires_at": at(days=30),
    }  # fmt: skip
    return KeyRow(**plain | values)


def an_audited_call(**values: Any) -> AuditRow:
    plain = {
        "at": START, "who": "key", "name": "admin", "key_id": 7, "uid": 1000, "action": "keys.create",
        "subject_kind": "key", "subject_name": "ci", "before": {"é": 1}, "after": {"b": [2]}, "status": 201,
        "code": "ok", "request_id": "r1", "peer": "10.0.0.1", "node": "main",
    }  # fmt: skip
    return AuditRow(**plain | values)


def save(
    store: FleetStore, one: ActionRecord, resources: Iterable[Resource] = (), events: Iterable[Event] = ()
) -> None:
    store.save_actions([ActionResult(action=one, resources=tuple(resources), events=tuple(events))])


def used(day: int = 1, key: int = 7, route: str = "qwen", **values: Any) -> UsageRow:
    """A row of a day of March 2026."""
    plain = {"requests": 1, "tokens_in": 10, "tokens_out": 3, "seconds": 0.5}
    return UsageRow(day=date(2026, 3, day), key_id=key, route=route, usage=Usage(**plain | values))


def usage_batch(*rows: UsageRow, number: int = 1, source: str = "w1") -> UsageBatch:
    return UsageBatch(source=source, number=number, rows=rows)
