"""The status of stacks, targets and adapters as values, and their stable JSON shape."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from garrison.fleet.report.agents import AgentStatus
from garrison.fleet.values.cures import cure_of
from garrison.fleet.values.declaration import ADAPTER_TYPE
from garrison.fleet.values.failure import timed_out
from garrison.fleet.values.observation import Cause
from garrison.store.records import ActionRecord, ActionState, CommandRecord, Lease

__all__ = [
    "ADAPTER_STATES",
    "LAST_SEEN_WELL",
    "AdapterStatus",
    "CutShort",
    "FleetStatus",
    "StackStatus",
    "TargetStatus",
    "Writer",
]

ADAPTER_STATES = ("served", "failed", "missing", "drifted", "owed", "on-demand", "unknown")
"""`failed`: the last action on the adapter failed permanently and needs a person to fix it. `missing`: proved absent.
`drifted`: served with another path, base model or content than applied. `owed`: declared or destroyed, but not carried
out yet. `on-demand`: not loaded, since no request asks for it. `unknown`: the target cannot be observed, or cannot load
adapters."""

LAST_SEEN_WELL = "as applied when the target was last seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterStatus:
    """One adapter of a stack on one target. `detail` says what is wrong, `hint` what to do about it."""

    stack: str
    target: str
    name: str
    label: str
    state: str
    detail: str = ""
    hint: str | None = None
    path: str | None = None
    since: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "stack": self.stack,
            "target": self.target,
            "type": ADAPTER_TYPE,
            "name": self.name,
            "label": self.label,
            "state": self.state,
            "detail": self.detail or None,
            "hint": self.hint,
            "path": self.path,
            "since": _iso(self.since),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "AdapterStatus":
        return cls(
            stack=body["stack"],
            target=body["target"],
            name=body["name"],
            label=body["label"],
            state=body["state"],
            detail=body["detail"] or "",
            hint=body["hint"],
            path=body["path"],
            since=_time(body["since"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetStatus:
    """One target.

    Attributes:
        state: `reachable`, `unreachable`, `unusable` (it answers, but not as it should) or `new` (never asked).
        cause, detail: why it is unreachable or unusable; `no-lora-routes` if it is reachable, but lacks an adapter and
            cannot load any.
        hint: what to do about that.
        since: when it entered that state.
        stacks: stacks that declare it or own adapters on it.
        adapters: number of adapters in each state, over all stacks.
        unmanaged: names of adapters that no stack owns.
    """

    name: str
    base_url: str
    state: str
    cause: str | None = None
    detail: str = ""
    since: datetime | None = None
    last_seen: datetime | None = None
    last_checked: datetime | None = None
    base: str | None = None
    version: str | None = None
    lora_routes: bool | None = None
    insecure: bool = False
    stacks: tuple[str, ...] = ()
    adapters: Mapping[str, int]
    unmanaged: tuple[str, ...] = ()

    @property
    def hint(self) -> str | None:
        return cure_of(self.cause, self.detail)

    @property
    def well(self) -> bool:
        """Whether the target is reachable, can load adapters, and serves all of them as declared."""
        bad = any(number for state, number in self.adapters.items() if state not in ("served", "on-demand"))
        return self.state == "reachable" and self.lora_routes is not False and not bad

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "base_url": self.base_url,
            "state": self.state,
            "cause": self.cause,
            "detail": self.detail or None,
            "hint": self.hint,
            "since": _iso(self.since),
            "last_seen": _iso(self.last_seen),
            "last_checked": _iso(self.last_checked),
            "base": self.base,
            "version": self.version,
            "lora_routes": self.lora_routes,
            "insecure": self.insecure,
            "stacks": list(self.stacks),
            "adapters": dict(self.adapters),
            "unmanaged": list(self.unmanaged),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "TargetStatus":
        return cls(
            name=body["name"],
            base_url=body["base_url"],
            state=body["state"],
            cause=body["cause"],
            detail=body["detail"] or "",
            since=_time(body["since"]),
            last_seen=_time(body["last_seen"]),
            last_checked=_time(body["last_checked"]),
            base=body["base"],
            version=body["version"],
            lora_routes=body["lora_routes"],
            insecure=body["insecure"],
            stacks=tuple(body["stacks"]),
            adapters=dict(body["adapters"]),
            unmanaged=tuple(body["unmanaged"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """The process that holds a stack.

    Attributes:
        holder: `user@host`.
        purpose: what it does.
        dead: it is gone, but its lease has not expired.
    """

    holder: str
    pid: int
    purpose: str
    since: datetime
    expires_at: datetime
    dead: bool = False

    @classmethod
    def of(cls, lease: Lease, *, dead: bool = False) -> "Writer":
        holder = lease.holder
        return cls(
            holder=f"{holder.user}@{holder.host.partition('/')[0]}",
            pid=holder.pid,
            purpose=holder.purpose,
            since=lease.acquired_at,
            expires_at=lease.expires_at,
            dead=dead,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "holder": self.holder,
            "pid": self.pid,
            "purpose": self.purpose,
            "since": self.since.isoformat(),
            "expires_at": self.expires_at.isoformat(),
            "dead": self.dead,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Writer":
        times = {name: datetime.fromisoformat(body[name]) for name in ("since", "expires_at")}
        return cls(holder=body["holder"], pid=body["pid"], purpose=body["purpose"], dead=body["dead"], **times)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutShort:
    """A command that is not settled yet: it was killed, or a target did not answer a load in time.

    Attributes:
        late: the adapters whose loads were not answered in time, as `target/name`; none if it was killed.
    """

    command: str
    kind: str
    by: str
    started_at: datetime
    late: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: CommandRecord, actions: Iterable[ActionRecord]) -> "CutShort":
        begun = [one for one in actions if one.state is ActionState.STARTED]
        late = [f"{one.key.target}/{one.key.name}" for one in begun if timed_out(one.error)]
        return cls(
            command=record.id,
            kind=record.kind,
            by=record.by,
            started_at=record.started_at,
            late=tuple(late) if len(late) == len(begun) else (),
        )

    def to_json(self) -> dict[str, Any]:
        at = self.started_at.isoformat()
        return {
            "command": self.command, "kind": self.kind, "by": self.by, "started_at": at, "late": list(self.late),
        }  # fmt: skip

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "CutShort":
        at = datetime.fromisoformat(body["started_at"])
        late = tuple(body.get("late", ()))
        return cls(command=body["command"], kind=body["kind"], by=body["by"], started_at=at, late=late)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    """One stack.

    Attributes:
        writer: who holds it, if anybody.
        interrupted: commands that are not settled yet.
    """

    name: str
    version: int
    applied_at: datetime
    on_drift: str
    ending: bool
    targets: tuple[str, ...]
    adapters: tuple[AdapterStatus, ...]
    writer: Writer | None = None
    interrupted: tuple[CutShort, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Number of adapters in each state that occurs."""
        counted = Counter(one.state for one in self.adapters)
        return {state: counted[state] for state in ADAPTER_STATES if counted[state]}

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "applied_at": self.applied_at.isoformat(),
            "on_drift": self.on_drift,
            "ending": self.ending,
            "targets": list(self.targets),
            "counts": self.counts,
            "adapters": [one.to_json() for one in self.adapters],
            "lease": self.writer.to_json() if self.writer else None,
            "interrupted": [one.to_json() for one in self.interrupted],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "StackStatus":
        return cls(
            name=body["name"],
            version=body["version"],
            applied_at=datetime.fromisoformat(body["applied_at"]),
            on_drift=body["on_drift"],
            ending=body["ending"],
            targets=tuple(body["targets"]),
            adapters=tuple(map(AdapterStatus.from_json, body["adapters"])),
            writer=Writer.from_json(body["lease"]) if body["lease"] else None,
            interrupted=tuple(map(CutShort.from_json, body["interrupted"])),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """The status of the fleet.

    Attributes:
        cached: no target was observed; these are the last recorded observations.
        agents: the agents that keep it, also those that were killed.
        destroyed: where nothing is on record, the stack that was destroyed last, and when; None if there never was one.
    """

    at: datetime
    cached: bool
    stacks: tuple[StackStatus, ...]
    targets: tuple[TargetStatus, ...]
    agents: tuple[AgentStatus, ...] = ()
    destroyed: tuple[str, datetime] | None = None

    @property
    def adapters(self) -> Counter[str]:
        return Counter(one.state for stack in self.stacks for one in stack.adapters)

    @property
    def unknown(self) -> tuple[TargetStatus, ...]:
        return tuple(one for one in self.targets if one.state != "reachable")

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`; `from_json` reads back an equal status."""
        return {
            "at": self.at.isoformat(),
            "cached": self.cached,
            "summary": {
                "stacks": len(self.stacks),
                "targets": dict(sorted(Counter(map(_counted_as, self.targets)).items())),
                "adapters": {state: self.adapters[state] for state in ADAPTER_STATES if self.adapters[state]},
            },
            "stacks": [one.to_json() for one in self.stacks],
            "targets": [one.to_json() for one in self.targets],
            "agents": [one.to_json() for one in self.agents],
            "destroyed": {"stack": self.destroyed[0], "at": self.destroyed[1].isoformat()} if self.destroyed else None,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "FleetStatus":
        return cls(
            at=datetime.fromisoformat(body["at"]),
            cached=body["cached"],
            stacks=tuple(map(StackStatus.from_json, body["stacks"])),
            targets=tuple(map(TargetStatus.from_json, body["targets"])),
            agents=tuple(map(AgentStatus.from_json, body.get("agents", ()))),
            destroyed=(last["stack"], datetime.fromisoformat(last["at"])) if (last := body.get("destroyed")) else None,
        )


def _counted_as(one: TargetStatus) -> str:
    """Return the state; `not_asked` if the fault is on this side, which says nothing about the target."""
    return "not_asked" if one.cause == Cause.LOCAL else one.state


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
