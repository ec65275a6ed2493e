"""Computes the status of all stacks and targets from declared, recorded and observed state. Values, no I/O."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from garrison.fleet.artifacts.protocol import EntryFault
from garrison.fleet.observe.drift import Drift, find_drift
from garrison.fleet.observe.entry_faults import Faults, words
from garrison.fleet.plan.differences import differences
from garrison.fleet.report.last_failure import LastFailure, Place
from garrison.fleet.values.causes import OWED
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterSpec, Declaration
from garrison.fleet.values.observation import Cause, Presence, Sighting
from garrison.fleet.values.target import TargetSpec
from garrison.store.records import CommandRecord, Lease, Operation, Resource, StackRecord, TargetRecord

__all__ = [
    "ADAPTER_STATES",
    "LAST_SEEN_WELL",
    "AdapterStatus",
    "FleetStatus",
    "StackStatus",
    "TargetStatus",
    "fleet_status",
]

ADAPTER_STATES = ("served", "failed", "missing", "drifted", "owed", "unknown")
"""`failed`: the last action on the adapter failed permanently and needs a person to fix it. `missing`: proved absent.
`drifted`: served with another path, base model or content than applied. `owed`: declared or destroyed, but not carried
out yet. `unknown`: the target cannot be observed, or cannot load adapters."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetStatus:
    """One target.

    Attributes:
        state: `reachable`, `unreachable` or `new` (never asked).
        cause, detail: why it is unreachable; `no-lora-routes` if it is reachable, but lacks an adapter and cannot load
            any.
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
    def well(self) -> bool:
        """Whether the target is reachable, can load adapters, and serves all of them as declared."""
        bad = any(number for state, number in self.adapters.items() if state != "served")
        return self.state == "reachable" and self.lora_routes is not False and not bad

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "base_url": self.base_url,
            "state": self.state,
            "cause": self.cause,
            "detail": self.detail or None,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    """One stack.

    Attributes:
        lease: the current writer, if any.
        dead: that process is gone, but its lease has not expired.
        interrupted: commands that were killed and are not settled yet.
    """

    name: str
    version: int
    applied_at: datetime
    on_drift: str
    ending: bool
    targets: tuple[str, ...]
    adapters: tuple[AdapterStatus, ...]
    lease: Lease | None = None
    dead: bool = False
    interrupted: tuple[CommandRecord, ...] = ()

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
            "lease": _lease_json(self.lease) | {"dead": self.dead} if self.lease else None,
            "interrupted": [
                {"command": one.id, "kind": one.kind, "by": one.by, "started_at": one.started_at.isoformat()}
                for one in self.interrupted
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """The status of the fleet. `cached`: no target was observed; these are the last recorded observations."""

    at: datetime
    cached: bool
    stacks: tuple[StackStatus, ...]
    targets: tuple[TargetStatus, ...]

    @property
    def adapters(self) -> Counter[str]:
        return Counter(one.state for stack in self.stacks for one in stack.adapters)

    @property
    def unknown(self) -> tuple[TargetStatus, ...]:
        return tuple(one for one in self.targets if one.state != "reachable")

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`."""
        return {
            "at": self.at.isoformat(),
            "cached": self.cached,
            "summary": {
                "stacks": len(self.stacks),
                "targets": dict(sorted(Counter(one.state for one in self.targets).items())),
                "adapters": {state: self.adapters[state] for state in ADAPTER_STATES if self.adapters[state]},
            },
            "stacks": [one.to_json() for one in self.stacks],
            "targets": [one.to_json() for one in self.targets],
        }


def fleet_status(
    stacks: Sequence[StackRecord],
    targets: Iterable[TargetRecord],
    resources: Sequence[Resource],
    sightings: Mapping[str, Sighting],
    *,
    now: datetime,
    leases: Iterable[Lease] = (),
    dead: Collection[str] = (),
    unfinished: Mapping[str, Sequence[CommandRecord]] | None = None,
    failures: Mapping[Place, LastFailure] | None = None,
    faults: Faults | None = None,
    cached: bool = False,
) -> FleetStatus:
    """Compute the status of `stacks` and `targets`. Pure.

    Args:
        targets: records as updated by the observations.
        resources: resources of all stacks.
        sightings: the observation of each target, or `remember.last_sighting` if it was not observed.
        now: decides which leases have expired.
        leases: all leases in the store.
        dead: tokens of leases whose holders are known to be gone.
        unfinished: commands in state `running`, by stack.
        failures: see `last_failure.last_failures`.
        faults: see `entry_faults.entry_faults`.
        cached: recorded in the result.
    """
    held = {lease.stack: lease for lease in leases if lease.expires_at > now}
    found = []
    for record in stacks:
        lease = held.get(record.name)
        ended = lease is not None and lease.token in dead
        # While a live process holds the stack, its running command is not interrupted.
        cut_short = () if lease and not ended else tuple((unfinished or {}).get(record.name, ()))
        adapters = _adapters(record, resources, sightings, failures or {}, faults or {})
        found.append(_stack(record, adapters, lease, cut_short, dead=ended))
    # Indexes by target, built once: a scan per target would make the cost quadratic in the size of the fleet.
    here: dict[str, list[AdapterStatus]] = {}
    for stack in found:
        for adapter in stack.adapters:
            here.setdefault(adapter.target, []).append(adapter)
    declared: dict[str, set[str]] = {}
    for stack in found:
        for name in stack.targets:
            declared.setdefault(name, set()).add(stack.name)
    owned: dict[str, set[str]] = {}
    for resource in resources:
        owned.setdefault(resource.key.target, set()).add(resource.key.name)
    return FleetStatus(
        at=now,
        cached=cached,
        stacks=tuple(found),
        targets=tuple(
            _target(
                record,
                sightings.get(record.name),
                here.get(record.name, ()),
                declared.get(record.name, set()),
                owned.get(record.name, set()),
            )
            for record in targets
        ),
    )


def _stack(
    record: StackRecord,
    adapters: Sequence[AdapterStatus],
    lease: Lease | None,
    interrupted: tuple[CommandRecord, ...],
    *,
    dead: bool,
) -> StackStatus:
    declaration = Declaration.from_json(record.declaration)
    return StackStatus(
        name=record.name,
        version=record.version,
        applied_at=record.at,
        on_drift=declaration.policy.on_drift,
        ending=record.ending,
        targets=tuple(sorted(declaration.targets.keys() | {one.target for one in adapters})),
        adapters=tuple(adapters),
        lease=lease,
        dead=dead,
        interrupted=interrupted,
    )


def _adapters(
    record: StackRecord,
    resources: Iterable[Resource],
    sightings: Mapping[str, Sighting],
    failures: Mapping[Place, LastFailure],
    faults: Faults,
) -> list[AdapterStatus]:
    """Return the adapters that the stack declares or owns, sorted by target and name."""
    declaration = Declaration.from_json(record.declaration)
    wanted = {} if record.ending else {(one.target, one.lora_name): one for one in declaration.adapters}
    owned = {(one.key.target, one.key.name): one for one in resources if one.stack == record.name}
    restore = declaration.policy.on_drift == "restore"
    found = []
    for place in sorted(wanted.keys() | owned.keys()):
        want, own = wanted.get(place), owned.get(place)
        state, detail = _judge(place[1], want, own, sightings.get(place[0]), restore=restore)
        if state == "served" and own is not None and (fault := faults.get(own.served_path)) is not None:
            state, detail = _faulty(own.served_path, fault)
        one = AdapterStatus(
            stack=record.name,
            target=place[0],
            name=place[1],
            label=want.label if want else own.label if own else place[1],
            state=state,
            detail=detail,
            path=own.served_path if own else None,
            since=own.at if own else None,
        )
        found.append(_failed(one, failures.get((record.name, *place)), record, sightings.get(place[0])))
    return found


def _failed(
    one: AdapterStatus, failure: LastFailure | None, record: StackRecord, seen: Sighting | None
) -> AdapterStatus:
    """Turn `one` into `failed` if the last failure explains why it is not served as declared."""
    if failure is None or seen is None or not seen.known or one.state not in ("owed", "missing"):
        return one
    # A failure before the last apply, or before the adapter's current version, is superseded.
    if failure.at < record.at or (one.since is not None and failure.at < one.since):
        return one
    return replace(one, state="failed", detail=failure.message, hint=failure.hint)


def _judge(
    name: str, wanted: AdapterSpec | None, owned: Resource | None, seen: Sighting | None, *, restore: bool
) -> tuple[str, str]:
    """Return the state, and the reason for display."""
    if seen is None or not seen.known:
        return _unseen(wanted, owned, restore=restore)
    if seen.lora_routes is False and seen.presence(name) is not Presence.PRESENT:
        return "unknown", f"{Cause.NO_LORA_ROUTES}: the target cannot load adapters at run time"
    if owned is None:
        return "owed", "declared, but not loaded yet"
    drifts = find_drift([owned], seen)
    if wanted is None:
        return ("owed", "no longer declared, but not unloaded yet")
    if drifts:
        return _drifted(drifts[0])
    if _changed(wanted, owned):
        return "owed", "declared differently than last applied"
    return "served", ""


def _unseen(wanted: AdapterSpec | None, owned: Resource | None, *, restore: bool) -> tuple[str, str]:
    """Return state and reason of an adapter on an unobserved target: what is owed there, else its last known state."""
    if wanted is None:
        return "owed", "will be unloaded when the target is seen again"
    if owned is None:
        return "owed", "will be loaded when the target is seen again"
    if owned.operation is Operation.LOST:
        if restore or owned.cause in OWED or _changed(wanted, owned):
            return "owed", "will be loaded when the target is seen again"
        return "unknown", "missing when the target was last seen"
    if _changed(wanted, owned):
        return "owed", "will be updated when the target is seen again"
    return "unknown", LAST_SEEN_WELL


def _faulty(path: str, fault: EntryFault) -> tuple[str, str]:
    detail = f"{words(path, fault)}; the next apply or pass of the agent serves it from a new one"
    return ("owed" if fault is EntryFault.SHARED else "drifted"), detail


def _drifted(drift: Drift) -> tuple[str, str]:
    if drift.observed is not None:
        return "drifted", drift.words
    gone = drift.resource
    if gone.operation is Operation.LOST:
        return "missing", f"gone since {gone.at:%Y-%m-%d %H:%M:%S} UTC" + (f" ({gone.cause})" if gone.cause else "")
    return "missing", drift.words


def _changed(wanted: AdapterSpec, owned: Resource) -> bool:
    """Return whether the declaration changed since the last apply, except for the label, which no target sees."""
    return any(change.field != "label" for change in differences(wanted, owned))


def _target(
    record: TargetRecord,
    seen: Sighting | None,
    adapters: Iterable[AdapterStatus],
    stacks: set[str],
    owned: set[str],
) -> TargetStatus:
    spec = TargetSpec.from_json(record.name, record.spec)
    adapters = list(adapters)
    counted = Counter(one.state for one in adapters)
    served = seen.adapters if seen is not None and seen.known else {}
    cause, detail = record.cause, record.detail
    if record.state == "reachable":
        missing = [one.name for one in adapters if one.name not in served]
        blocked = seen is not None and seen.lora_routes is False and bool(missing)
        cause, detail = (str(Cause.NO_LORA_ROUTES), "cannot load adapters at run time") if blocked else (None, "")
    return TargetStatus(
        name=record.name,
        base_url=spec.base_url,
        state=record.state,
        cause=cause,
        detail=detail,
        since=record.since,
        last_seen=record.last_seen,
        last_checked=record.last_checked,
        base=record.base,
        version=record.capabilities.get("version"),
        lora_routes=record.capabilities.get("lora_routes"),
        insecure=spec.unverified,
        stacks=tuple(sorted(stacks | {one.stack for one in adapters})),
        adapters={state: counted[state] for state in ADAPTER_STATES if counted[state]},
        unmanaged=tuple(sorted(name for name in served if name not in owned)),
    )


def _lease_json(lease: Lease) -> dict[str, Any]:
    holder = lease.holder
    return {
        "holder": f"{holder.user}@{holder.host.partition('/')[0]}",
        "pid": holder.pid,
        "purpose": holder.purpose,
        "since": lease.acquired_at.isoformat(),
        "expires_at": lease.expires_at.isoformat(),
    }


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
