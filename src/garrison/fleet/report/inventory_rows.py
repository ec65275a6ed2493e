"""The rows of the inventory, with their query fields and their shape in `--json`. Values only.

Whatever is on an unreachable target is `unknown`; the row says when the target was last seen, since when it has been
unreachable, and why.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from garrison.fleet.report.query import Fields, Query, Value
from garrison.fleet.report.status import ADAPTER_STATES, StackStatus, TargetStatus
from garrison.fleet.values.declaration import ADAPTER_TYPE, MODEL_TYPE

__all__ = [
    "FIELDS",
    "NOUNS",
    "UNMANAGED",
    "AdapterRow",
    "ModelRow",
    "Reach",
    "Row",
    "StackRow",
    "TargetRow",
    "row_from_json",
    "select",
]

UNMANAGED = "unmanaged"
_YES_NO = ("true", "false")
_STATUSES = (*ADAPTER_STATES, UNMANAGED)
_TYPES = ("adapter", "model", ADAPTER_TYPE, MODEL_TYPE)

FIELDS: Mapping[str, Fields] = {
    "adapters": {
        "name": None, "target": None, "stack": None, "label": None, "status": _STATUSES, "managed": _YES_NO,
        "type": _TYPES, "path": None, "base": None, "labels": None,
    },
    "targets": {
        "name": None, "target": None, "stack": None, "cause": None,
        "status": ("reachable", "unreachable", "unusable", "new"), "url": None, "base": None, "version": None,
        "managed": _YES_NO, "labels": None,
    },
    "models": {
        "name": None, "target": None, "stack": None, "status": ("served", "unknown"), "managed": _YES_NO,
        "type": _TYPES, "path": None, "labels": None,
    },
    "stacks": {"name": None, "stack": None, "target": None, "status": (*ADAPTER_STATES, "empty")},
}  # fmt: skip
"""The query fields of each noun. `labels` are those of the target, as `site=lab`; `label` is the key in the manifest.
The status `drifted` also matches `missing`."""

NOUNS = tuple(FIELDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The last known state of a row's target."""

    state: str
    since: datetime | None
    last_seen: datetime | None
    cause: str | None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "since": _iso(self.since),
            "last_seen": _iso(self.last_seen),
            "cause": self.cause,
            "detail": self.detail or None,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Reach":
        return cls(
            state=body["state"],
            since=_time(body["since"]),
            last_seen=_time(body["last_seen"]),
            cause=body["cause"],
            detail=body["detail"] or "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRow:
    """One adapter on one target.

    Attributes:
        status: one of `status.ADAPTER_STATES`, or `unmanaged`.
        path, base: as last seen on the target; if it is not served, as it was applied.
        detail: what is wrong, for display.
        at: time of the last apply.
    """

    target: str
    name: str
    status: str
    stack: str | None = None
    label: str | None = None
    path: str | None = None
    base: str | None = None
    detail: str = ""
    at: datetime | None = None
    reach: Reach
    labels: tuple[str, ...] = ()

    @property
    def managed(self) -> bool:
        return self.stack is not None

    @property
    def fields(self) -> Mapping[str, Value]:
        return {
            "name": self.name, "target": self.target, "stack": self.stack, "label": self.label,
            "status": _findable(self.status), "managed": self.managed, "type": ("adapter", ADAPTER_TYPE),
            "path": self.path, "base": self.base,
            "labels": self.labels,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return {
            "type": ADAPTER_TYPE,
            "id": self.name,
            "parent": self.base,
            "root": self.path,
            "target": self.target,
            "name": self.name,
            "label": self.label,
            "stack": self.stack,
            "managed": self.managed,
            "status": self.status,
            "detail": self.detail or None,
            "path": self.path,
            "base": self.base,
            "applied_at": _iso(self.at),
            "target_state": self.reach.to_json(),
            "labels": list(self.labels),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "AdapterRow":
        return cls(
            target=body["target"],
            name=body["name"],
            status=body["status"],
            stack=body["stack"],
            label=body["label"],
            path=body["path"],
            base=body["base"],
            detail=body["detail"] or "",
            at=_time(body["applied_at"]),
            reach=Reach.from_json(body["target_state"]),
            labels=tuple(body["labels"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A base model. It is set when vLLM starts, so it is never managed."""

    target: str
    name: str
    status: str
    path: str | None
    reach: Reach
    stacks: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def fields(self) -> Mapping[str, Value]:
        return {
            "name": self.name, "target": self.target, "stack": self.stacks, "status": self.status, "managed": False,
            "type": ("model", MODEL_TYPE), "path": self.path, "labels": self.labels,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return {
            "type": MODEL_TYPE,
            "id": self.name,
            "parent": None,
            "root": self.path,
            "target": self.target,
            "name": self.name,
            "managed": False,
            "status": self.status,
            "path": self.path,
            "target_state": self.reach.to_json(),
            "stacks": list(self.stacks),
            "labels": list(self.labels),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "ModelRow":
        return cls(
            target=body["target"],
            name=body["name"],
            status=body["status"],
            path=body["path"],
            reach=Reach.from_json(body["target_state"]),
            stacks=tuple(body["stacks"]),
            labels=tuple(body["labels"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRow:
    """A target. `unmanaged` counts adapters, on an unreachable one those it was last seen to serve; `status` does not
    name them."""

    status: TargetStatus
    unmanaged: int
    labels: tuple[str, ...] = ()

    @property
    def fields(self) -> Mapping[str, Value]:
        one = self.status
        return {
            "name": one.name, "target": one.name, "stack": one.stacks, "status": one.state, "cause": one.cause,
            "url": one.base_url, "base": one.base, "version": one.version, "managed": bool(one.stacks),
            "labels": self.labels,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return self.status.to_json() | {"unmanaged": self.unmanaged, "labels": list(self.labels)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "TargetRow":
        return cls(
            status=TargetStatus.from_json(dict(body) | {"unmanaged": ()}),
            unmanaged=body["unmanaged"],
            labels=tuple(body["labels"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StackRow:
    """A stack, as `StackStatus` describes it; `adapters` is their number in each state."""

    name: str
    version: int
    applied_at: datetime
    on_drift: str
    ending: bool
    targets: tuple[str, ...]
    adapters: Mapping[str, int]

    @classmethod
    def of(cls, one: StackStatus) -> "StackRow":
        return cls(
            name=one.name,
            version=one.version,
            applied_at=one.applied_at,
            on_drift=one.on_drift,
            ending=one.ending,
            targets=one.targets,
            adapters=one.counts,
        )

    @property
    def fields(self) -> Mapping[str, Value]:
        states = tuple(value for state in self.adapters for value in _findable(state))
        return {"name": self.name, "stack": self.name, "target": self.targets, "status": states or ("empty",)}

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "applied_at": self.applied_at.isoformat(),
            "on_drift": self.on_drift,
            "ending": self.ending,
            "targets": list(self.targets),
            "adapters": dict(self.adapters),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "StackRow":
        return cls(
            name=body["name"],
            version=body["version"],
            applied_at=datetime.fromisoformat(body["applied_at"]),
            on_drift=body["on_drift"],
            ending=body["ending"],
            targets=tuple(body["targets"]),
            adapters=dict(body["adapters"]),
        )


class Row(Protocol):
    """What all rows have in common."""

    @property
    def fields(self) -> Mapping[str, Value]: ...

    def to_json(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=Row)

_ROWS: Mapping[str, Callable[[Mapping[str, Any]], Row]] = {
    "adapters": AdapterRow.from_json,
    "targets": TargetRow.from_json,
    "models": ModelRow.from_json,
    "stacks": StackRow.from_json,
}


def row_from_json(noun: str, body: Mapping[str, Any]) -> Row:
    """Read what `to_json` of a row of `noun` returned."""
    return _ROWS[noun](body)


def select(rows: Iterable[R], query: Query) -> list[R]:
    """Return the rows that match `query`."""
    return [row for row in rows if query.matches(row.fields)]


def _findable(status: str) -> tuple[str, ...]:
    """Return the values of `status` in queries: a missing adapter has drifted, too."""
    return (status, "drifted") if status == "missing" else (status,)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
