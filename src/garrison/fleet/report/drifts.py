"""The result of a drift check as values, and its stable JSON shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from garrison.fleet.observe.drift import Drift
from garrison.fleet.values.declaration import ADAPTER_TYPE
from garrison.fleet.values.observation import Served
from garrison.fleet.values.versions import public_name
from garrison.store.records import Operation

__all__ = ["DriftRow", "Drifts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRow:
    """One adapter that is not served as it was applied.

    Attributes:
        kind: see `observe.drift.Drift`.
        words: what differs, for display.
        applied_path, applied_base: as it was applied.
        served: as it is served; None if it is not.
        at: when it was applied; if it is `gone`, when that was found.
        gone: the record says so already.
        cause: why it is gone, if that is known.
    """

    kind: str
    stack: str
    target: str
    name: str
    label: str
    words: str
    applied_path: str
    applied_base: str | None
    served: Served | None
    at: datetime
    gone: bool = False
    cause: str | None = None

    @classmethod
    def of(cls, drift: Drift) -> "DriftRow":
        resource = drift.resource
        return cls(
            kind=drift.kind,
            stack=resource.stack,
            target=resource.key.target,
            name=public_name(resource),
            label=resource.label,
            words=drift.words,
            applied_path=resource.served_path,
            applied_base=resource.parent,
            served=drift.observed,
            at=resource.at,
            gone=resource.operation is Operation.LOST,
            cause=resource.cause,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`; `from_json` reads back an equal row."""
        return {
            "kind": self.kind,
            "stack": self.stack,
            "target": self.target,
            "type": ADAPTER_TYPE,
            "name": self.name,
            "label": self.label,
            "applied": {"path": self.applied_path, "base": self.applied_base},
            "served": {"path": self.served.root, "base": self.served.parent} if self.served else None,
            "applied_at": self.at.isoformat(),
            "detail": self.words,
            "gone": self.gone,
            "cause": self.cause,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "DriftRow":
        served = body["served"]
        return cls(
            kind=body["kind"],
            stack=body["stack"],
            target=body["target"],
            name=body["name"],
            label=body["label"],
            words=body["detail"],
            applied_path=body["applied"]["path"],
            applied_base=body["applied"]["base"],
            served=Served(body["name"], served["path"], served["base"]) if served is not None else None,
            at=datetime.fromisoformat(body["applied_at"]),
            gone=body["gone"],
            cause=body["cause"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifts:
    """The result of a drift check.

    Attributes:
        found: adapters that are not served as applied.
        unknown: targets that could not be checked completely, with cause and reason: those that were not observed, and
            those that lack an adapter and cannot load any.
        checked: number of adapters that were compared.
    """

    found: tuple[DriftRow, ...]
    unknown: Mapping[str, str]
    checked: int

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`; `from_json` reads back an equal result."""
        return {
            "checked": self.checked,
            "drift": [one.to_json() for one in self.found],
            "unknown": dict(self.unknown),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Drifts":
        return cls(
            found=tuple(map(DriftRow.from_json, body["drift"])), unknown=dict(body["unknown"]), checked=body["checked"]
        )
