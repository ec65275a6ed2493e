"""Arguments and results of the management verbs, where `operations` and `report` have no value for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from garrison.fleet.plan.context import Mode, PlanOptions
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.target import TargetSpec
from garrison.net.endpoint import Secret
from garrison.store.records import Event

if TYPE_CHECKING:
    from garrison.fleet.operations.apply import Applied
    from garrison.fleet.report.inventory_rows import Row

__all__ = [
    "AdoptRequest",
    "ApplyRequest",
    "Destroyed",
    "DiscoverRequest",
    "HistoryFilter",
    "Listing",
    "Stopping",
    "TargetPlace",
]

Stopping = Callable[[], bool]
"""Asked between two actions; when it returns True, no further one is started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyRequest:
    """What to plan or to apply."""

    declaration: Declaration
    mode: Mode = "reconcile"
    options: PlanOptions = PlanOptions()  # noqa: RUF009 - immutable

    @classmethod
    def destroying(cls, stack: str) -> "ApplyRequest":
        """Return the request for the plan of `Operations.destroy`."""
        return cls(declaration=Declaration(stack=stack), mode="destroy")

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_json` reads back an equal request."""
        options = {name: getattr(self.options, name) for name in PlanOptions.__slots__}
        return {"declaration": self.declaration.to_json(), "mode": self.mode, "options": options}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "ApplyRequest":
        return cls(
            declaration=Declaration.from_json(body["declaration"]),
            mode=body["mode"],
            options=PlanOptions(**body["options"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed:
    """The result of a destroy. `gone`: nothing was owed, so the stack is no longer on record."""

    applied: "Applied"
    gone: bool

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`."""
        return self.applied.to_json() | {"destroyed": self.gone}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Destroyed":
        from garrison.fleet.operations.apply import Applied

        return cls(applied=Applied.from_json(body), gone=body["destroyed"])


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptRequest:
    """Which adapters to adopt into `stack`.

    Attributes:
        names: `NAME` or `TARGET/NAME`, as served; empty if `query` is given.
        query: terms of the fields name, target, path and base; selects unmanaged adapters.
    """

    stack: str
    names: tuple[str, ...] = ()
    query: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_json` reads back an equal request."""
        return {"stack": self.stack, "names": list(self.names), "query": self.query}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "AdoptRequest":
        return cls(stack=body["stack"], names=tuple(body["names"]), query=body["query"])


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoverRequest:
    """Which targets to observe.

    Attributes:
        wanted: names or URLs; if empty, all of `declared`, or all on record without `declared`.
        declared: targets of a manifest.
        api_key: key for targets given by URL.
    """

    wanted: tuple[str, ...] = ()
    declared: Mapping[str, TargetSpec] | None = None
    api_key: Secret | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_json` reads back an equal request. Contains references, no secrets."""
        declared = self.declared
        return {
            "wanted": list(self.wanted),
            "declared": None if declared is None else {name: spec.to_json() for name, spec in declared.items()},
            "api_key": self.api_key.to_json() if self.api_key else None,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "DiscoverRequest":
        declared, api_key = body["declared"], body["api_key"]
        return cls(
            wanted=tuple(body["wanted"]),
            declared=None
            if declared is None
            else {name: TargetSpec.from_json(name, spec) for name, spec in declared.items()},
            api_key=Secret.from_json(api_key) if api_key else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFilter:
    """Which events of the history; None selects all. `kinds` are those of `fleet.values.events`."""

    stack: str | None = None
    target: str | None = None
    name: str | None = None
    kinds: tuple[str, ...] | None = None
    since: datetime | None = None

    def matches(self, event: Event) -> bool:
        """Return whether `event` is selected."""
        return (
            (self.stack is None or event.stack == self.stack)
            and (self.target is None or event.target == self.target)
            and (self.name is None or event.name == self.name)
            and (self.kinds is None or event.kind in self.kinds)
            and (self.since is None or event.at >= self.since)
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_json` reads back an equal filter."""
        return {
            "stack": self.stack,
            "target": self.target,
            "name": self.name,
            "kinds": None if self.kinds is None else list(self.kinds),
            "since": self.since.isoformat() if self.since else None,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "HistoryFilter":
        kinds, since = body["kinds"], body["since"]
        return cls(
            stack=body["stack"],
            target=body["target"],
            name=body["name"],
            kinds=None if kinds is None else tuple(kinds),
            since=datetime.fromisoformat(since) if since else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPlace:
    """Where a target is on record. `insecure`: its certificate is not verified; `last_seen`: None for never."""

    name: str
    base_url: str
    insecure: bool
    last_seen: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Rows of one noun that match a query.

    Attributes:
        on_record: number of rows without the query.
        targets: number of targets on record.
        now: when the rows were read.
    """

    rows: "tuple[Row, ...]"
    on_record: int
    targets: int
    now: datetime

    def to_json(self) -> list[dict[str, Any]]:
        """Return the stable shape of `--json`."""
        return [row.to_json() for row in self.rows]
