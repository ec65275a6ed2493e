"""Computes the status of all stacks and targets from declared, recorded and observed state. Values, no I/O."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from garrison.fleet.observe.entry_faults import Faults
from garrison.fleet.report.adapter_state import stack_adapters
from garrison.fleet.report.last_failure import LastFailure, Place
from garrison.fleet.report.public_names import PublicNames
from garrison.fleet.report.status import (
    ADAPTER_STATES,
    AdapterStatus,
    CutShort,
    FleetStatus,
    StackStatus,
    TargetStatus,
    Writer,
)
from garrison.fleet.values.cures import public_state
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.observation import Cause, Sighting
from garrison.fleet.values.target import TargetSpec
from garrison.store.records import Lease, Resource, StackRecord, TargetRecord

__all__ = ["fleet_status"]


def fleet_status(
    stacks: Sequence[StackRecord],
    targets: Iterable[TargetRecord],
    resources: Sequence[Resource],
    sightings: Mapping[str, Sighting],
    *,
    now: datetime,
    leases: Iterable[Lease] = (),
    dead: Collection[str] = (),
    unfinished: Mapping[str, Sequence[CutShort]] | None = None,
    failures: Mapping[Place, LastFailure] | None = None,
    faults: Faults | None = None,
    cached: bool = False,
) -> FleetStatus:
    """Compute the status of `stacks` and `targets`. Pure.

    Args:
        targets: records as updated by the observations.
        resources: resources of all stacks.
        sightings: the observation of each target, or `record_sighting.last_sighting` if it was not observed.
        now: decides which leases have expired.
        leases: all leases in the store.
        dead: tokens of leases whose holders are known to be gone.
        unfinished: commands in state `running`, by stack.
        failures: see `last_failure.last_failures`.
        faults: see `entry_faults.entry_faults`.
        cached: recorded in the result.
    """
    named = PublicNames.of(stacks, resources)
    resources, sightings = named.resources, {name: named.sighting(one) for name, one in sightings.items()}
    held = {lease.stack: lease for lease in leases if lease.expires_at > now}
    # Indexes, built once: a scan of everything per stack or per target would make the cost quadratic in the fleet.
    by_stack: dict[str, list[Resource]] = {}
    owned: dict[str, set[str]] = {}
    for resource in resources:
        by_stack.setdefault(resource.stack, []).append(resource)
        owned.setdefault(resource.key.target, set()).add(resource.key.name)
    found = []
    for record in stacks:
        lease = held.get(record.name)
        ended = lease is not None and lease.token in dead
        # While a live process holds the stack, its running command is not interrupted.
        cut_short = () if lease and not ended else tuple((unfinished or {}).get(record.name, ()))
        declaration = Declaration.from_json(record.declaration)
        mine = by_stack.get(record.name, ())
        adapters = stack_adapters(record, declaration, mine, sightings, failures or {}, faults or {})
        found.append(_stack(record, declaration, adapters, lease, cut_short, dead=ended))
    return FleetStatus(
        at=now, cached=cached, stacks=tuple(found), targets=tuple(_targets(targets, sightings, found, owned))
    )


def _stack(
    record: StackRecord,
    declaration: Declaration,
    adapters: Sequence[AdapterStatus],
    lease: Lease | None,
    interrupted: tuple[CutShort, ...],
    *,
    dead: bool,
) -> StackStatus:
    return StackStatus(
        name=record.name,
        version=record.version,
        applied_at=record.at,
        on_drift=declaration.policy.on_drift,
        ending=record.ending,
        targets=tuple(sorted(declaration.targets.keys() | {one.target for one in adapters})),
        adapters=tuple(adapters),
        writer=Writer.of(lease, dead=dead) if lease else None,
        interrupted=interrupted,
    )


def _targets(
    records: Iterable[TargetRecord],
    sightings: Mapping[str, Sighting],
    stacks: Iterable[StackStatus],
    owned: Mapping[str, set[str]],
) -> Iterator[TargetStatus]:
    adapters: dict[str, list[AdapterStatus]] = {}
    declared: dict[str, set[str]] = {}
    for stack in stacks:
        for adapter in stack.adapters:
            adapters.setdefault(adapter.target, []).append(adapter)
        for name in stack.targets:
            declared.setdefault(name, set()).add(stack.name)
    for record in records:
        name = record.name
        yield _target(
            record, sightings.get(name), adapters.get(name, ()), declared.get(name, set()), owned.get(name, set())
        )


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
        missing = [one.name for one in adapters if one.name not in served and one.state != "on-demand"]
        blocked = seen is not None and seen.lora_routes is False and bool(missing)
        cause, detail = (str(Cause.NO_LORA_ROUTES), "cannot load adapters at run time") if blocked else (None, "")
    return TargetStatus(
        name=record.name,
        base_url=spec.base_url,
        state=public_state(record.state, record.cause),
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
