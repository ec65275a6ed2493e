"""The management verbs, carried out in this process on the store and the network that it opened."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from garrison.base.errors import InvalidError
from garrison.base.known_names import known_names
from garrison.fleet.context import Fleet
from garrison.fleet.management.requests import (
    AdoptRequest,
    ApplyRequest,
    Destroyed,
    DiscoverRequest,
    HistoryFilter,
    Listing,
    Stopping,
    TargetPlace,
)
from garrison.fleet.values.view import FleetView
from garrison.store.records import Event, TargetRecord

if TYPE_CHECKING:
    from garrison.fleet.execute.executor import ExecuteOptions
    from garrison.fleet.operations.adopt import Adopted, Adoption, Choose
    from garrison.fleet.operations.apply import Applied
    from garrison.fleet.operations.discover import Discovered
    from garrison.fleet.operations.forget import Forgotten, Loss
    from garrison.fleet.report.drifts import Drifts
    from garrison.fleet.report.extract import Extract
    from garrison.fleet.report.inventory import Inventory
    from garrison.fleet.report.status import FleetStatus
    from garrison.fleet.values.plan import Plan

__all__ = ["LocalOperations"]

_ADOPTABLE = {"name": None, "target": None, "path": None, "base": None}
_PAGE = 500
_ASKS_FOR_STRANGERS = ("status", "managed", "name", "path")
"""Fields of a query that may be meant for adapters that no stack owns. One of targets is not: theirs are there, too."""


class LocalOperations:
    """`Operations` on a fleet in this process; see there for what each method does.

    Each method imports what it needs: a command uses one of them, and waits for its imports.
    """

    place: None = None

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    # --- declared

    async def plan(self, request: ApplyRequest, view: FleetView, *, settle: bool = False) -> "Plan":
        from garrison.fleet.operations.apply import preview, propose
        from garrison.fleet.values.plan import Plan

        if request.mode == "destroy":
            if await self._was_destroyed(request.declaration.stack):
                return Plan(stack=request.declaration.stack, mode="destroy")
            await self._check_on_record(request.declaration.stack)
        make = propose if settle else preview
        return await make(self._fleet, request.declaration, view, mode=request.mode, options=request.options)

    async def apply(
        self,
        request: ApplyRequest,
        view: FleetView,
        *,
        fingerprint: str | None = None,
        stopping: Stopping | None = None,
    ) -> "Applied":
        from garrison.fleet.operations.apply import apply

        applied = await apply(
            self._fleet,
            request.declaration,
            view,
            mode=request.mode,
            options=request.options,
            fingerprint=fingerprint,
            execution=_execution(stopping),
        )
        await self._fleet.traffic.follow()
        return applied

    async def carry_owed(
        self,
        stack: str,
        applied: "Applied",
        view: FleetView,
        *,
        waiting: Callable[[int, float], None],
        stopping: Stopping | None = None,
    ) -> "Applied":
        from garrison.fleet.operations.watch import watch

        record = await self._fleet.read(self._fleet.store.stack, stack, at=())
        policy = record.declaration.get("policy", {}) if record is not None else {}
        targets = {one.action.target for one in applied.owed}
        done = await watch(
            self._fleet, stack, view, targets=targets, owed=len(applied.owed),
            longest=policy.get("interval", 30.0), waiting=waiting, stopping=stopping or _never,
        )  # fmt: skip
        # Later outcomes replace those of the first attempt, and these targets have been observed since.
        outcomes = {one.action.key: one for one in (*applied.outcomes, *done.outcomes)}
        unknown = {name: why for name, why in applied.plan.unknown.items() if name not in targets}
        return replace(applied, outcomes=tuple(outcomes.values()), plan=replace(applied.plan, unknown=unknown))

    async def destroy(
        self, stack: str, view: FleetView, *, fingerprint: str | None = None, stopping: Stopping | None = None
    ) -> Destroyed:
        from garrison.fleet.operations.apply import Applied, destroy
        from garrison.fleet.plan.context import PlanOptions
        from garrison.fleet.values.plan import Plan

        if await self._was_destroyed(stack):
            return Destroyed(applied=Applied(plan=Plan(stack=stack, mode="destroy")), gone=True)
        await self._check_on_record(stack)
        applied = await destroy(
            self._fleet, stack, view, options=PlanOptions(), fingerprint=fingerprint, execution=_execution(stopping)
        )
        await self._fleet.traffic.follow()
        gone = await self._fleet.read(self._fleet.store.stack, stack, at=()) is None
        return Destroyed(applied=applied, gone=gone)

    # --- found

    async def propose_adoption(self, request: AdoptRequest, view: FleetView) -> "Adoption":
        from garrison.fleet.operations.adopt import propose_adoption

        choose, only = await self._chosen(request)
        return await propose_adoption(self._fleet, request.stack, choose, view, only=only)

    async def adopt(self, request: AdoptRequest, view: FleetView, *, fingerprint: str | None = None) -> "Adopted":
        from garrison.fleet.operations.adopt import adopt

        choose, only = await self._chosen(request)
        adopted = await adopt(self._fleet, request.stack, choose, view, fingerprint=fingerprint, only=only)
        await self._fleet.traffic.follow()
        return adopted

    async def propose_forgetting(self, target: str, view: FleetView, *, force: bool = False) -> "Loss":
        from garrison.fleet.operations.forget import propose_forgetting

        return await propose_forgetting(self._fleet, target, view, force=force)

    async def forget(
        self, target: str, view: FleetView, *, fingerprint: str | None = None, force: bool = False
    ) -> "Forgotten":
        from garrison.fleet.operations.forget import forget

        forgotten = await forget(self._fleet, target, view, fingerprint=fingerprint, force=force)
        await self._fleet.traffic.follow()
        return forgotten

    async def discover(self, request: DiscoverRequest, view: FleetView) -> "tuple[Discovered, ...]":
        from garrison.fleet.operations.discover import choose_targets, discover

        records = await self._fleet.read(self._fleet.store.targets)
        chosen = choose_targets(request.wanted, request.declared, records, api_key=request.api_key)
        return tuple(await discover(self._fleet, chosen, view))

    # --- read

    async def status(self, view: FleetView, *, stack: str | None = None, cached: bool = False) -> "FleetStatus":
        from garrison.fleet.report.inspect import status_of

        return await status_of(self._fleet, view, stack=stack, cached=cached)

    async def drift(self, view: FleetView, *, stack: str | None = None) -> "Drifts":
        from garrison.fleet.report.inspect import find_drifts

        return await find_drifts(self._fleet, view, stack=stack)

    async def inventory(self, noun: str, query: str = "") -> Listing:
        from garrison.fleet.report.inventory_rows import FIELDS, NOUNS, select
        from garrison.fleet.report.query import parse_query

        if noun not in NOUNS:
            raise InvalidError(f"unknown kind of record {noun!r}", hint=f"One of {', '.join(NOUNS)}.")
        asked = parse_query(query, FIELDS[noun])
        stock = await self._stock()
        rows = getattr(stock, noun)
        return Listing(
            rows=tuple(select(rows, asked)),
            on_record=len(rows),
            targets=len(stock.targets),
            now=self._fleet.clock.now(),
        )

    async def extract(self, query: str = "", *, stack: str | None = None) -> "Extract":
        from garrison.fleet.report.extract import extract
        from garrison.fleet.report.inventory_rows import FIELDS, select
        from garrison.fleet.report.query import parse_query

        asked = parse_query(query, FIELDS["adapters"])
        store, read = self._fleet.store, self._fleet.read
        rows = select((await self._stock()).adapters, asked)
        return extract(
            rows,
            await read(store.stacks),
            await read(store.targets),
            await read(store.resources),
            stack=stack,
            strangers=any(one.field in _ASKS_FOR_STRANGERS and one.sign != "-" for one in asked.terms),
        )

    async def targets(self, names: Collection[str] = (), *, stack: str | None = None) -> tuple[TargetRecord, ...]:
        store, read, wanted = self._fleet.store, self._fleet.read, set(names)
        if stack is not None:
            record = await read(store.stack, stack)
            wanted |= record.declaration.get("targets", {}).keys() if record is not None else set()
            wanted |= {one.key.target for one in await read(store.resources, stack=stack)}
        return tuple(await read(store.targets, wanted))

    async def places(self, names: Collection[str], *, stack: str) -> tuple[TargetPlace, ...]:
        from garrison.fleet.values.target import TargetSpec

        found = [(one, TargetSpec.from_json(one.name, one.spec)) for one in await self.targets(names, stack=stack)]
        return tuple(
            TargetPlace(name=one.name, base_url=spec.base_url, insecure=spec.unverified, last_seen=one.last_seen)
            for one, spec in found
        )

    def now(self) -> datetime:
        return self._fleet.clock.now()

    async def history(
        self, chosen: HistoryFilter, *, limit: int = 100, after_id: int | None = None
    ) -> tuple[Event, ...]:
        found = await self._events(chosen, after_id=after_id, limit=limit)
        return tuple(reversed(found) if after_id is None else found)

    async def follow(self, chosen: HistoryFilter, *, after_id: int) -> AsyncIterator[Event]:
        last, feed = after_id, self._fleet.feed
        with self._fleet.events.subscribe(wants=chosen.matches) as events:
            async with feed.running():
                missed = True  # what was recorded before the feed began is read from the store, as is what was lost
                while True:
                    while missed:
                        page = await self._events(chosen, after_id=last, limit=_PAGE)
                        for event in page:
                            last = event.id
                            yield event
                        missed = len(page) == _PAGE
                    delivery = await anext(events)
                    missed = delivery.missed > 0
                    if not missed and delivery.event.id > last:
                        last = delivery.event.id
                        yield delivery.event

    # ---

    async def _was_destroyed(self, stack: str) -> bool:
        """Return whether nothing is left of the stack, and the history says that it was destroyed."""
        from garrison.fleet.values import events

        store, read = self._fleet.store, self._fleet.read
        if await read(store.stack, stack, at=()) is not None:
            return False
        left = await read(store.resources, stack=stack)
        told = await read(store.events, stack=stack, kinds=(events.DESTROYED,), limit=1)
        return bool(told) and not left

    async def _check_on_record(self, stack: str) -> None:
        """Raise InvalidError unless the stack is on record. Resources outlive the declaration of a destroyed stack."""
        store, read = self._fleet.store, self._fleet.read
        if await read(store.stack, stack, at=()) is not None:
            return
        if await read(store.resources, stack=stack):
            return
        there = known_names(stack, (one.name for one in await read(store.stacks, at=())))
        raise InvalidError(f"stack {stack!r} is not on record", hint=f"{there} `garrison status` shows them.")

    async def _chosen(self, request: AdoptRequest) -> "tuple[Choose, set[str] | None]":
        """Return what selects the adapters, and the targets to observe; None for all, unless every name includes its
        target."""
        from garrison.fleet.report.query import parse_query

        if bool(request.names) == (request.query is not None):
            raise InvalidError("give either names of adapters or a query", hint="A name is NAME or TARGET/NAME.")
        if request.query is not None:
            query = parse_query(request.query, _ADOPTABLE)
            return (
                lambda one: (
                    one.owner is None
                    and query.matches(
                        {
                            "name": one.served.name,
                            "target": one.target,
                            "path": one.served.root,
                            "base": one.served.parent,
                        }
                    )
                ),
                None,
            )
        wanted = set(request.names)
        prefixes = {name.partition("/")[0] for name in wanted if "/" in name}
        known = {one.name for one in await self._fleet.read(self._fleet.store.targets, prefixes)}
        all_named = all("/" in name and name.partition("/")[0] in known for name in wanted)
        return (
            lambda one: one.served.name in wanted or f"{one.target}/{one.served.name}" in wanted,
            known if all_named else None,
        )

    async def _stock(self) -> "Inventory":
        """Return everything on record as rows, with the last failure of each adapter."""
        from garrison.fleet.observe.entry_faults import entry_faults
        from garrison.fleet.report.inventory import take_stock
        from garrison.fleet.report.last_failure import read_failures

        store, read = self._fleet.store, self._fleet.read
        stacks, targets, resources = await read(store.stacks), await read(store.targets), await read(store.resources)
        failures = await read(read_failures, store, stacks)
        faults = await entry_faults(self._fleet, (one.served_path for one in resources))
        now = self._fleet.clock.now()
        return await asyncio.to_thread(take_stock, stacks, targets, resources, now, failures, faults)

    async def _events(self, chosen: HistoryFilter, *, after_id: int | None, limit: int) -> list[Event]:
        return await self._fleet.read(
            self._fleet.store.events,
            stack=chosen.stack,
            target=chosen.target,
            name=chosen.name,
            kinds=chosen.kinds,
            since=chosen.since,
            after_id=after_id,
            limit=limit,
        )


def _execution(stopping: Stopping | None) -> "ExecuteOptions":
    from garrison.fleet.execute.executor import ExecuteOptions

    return ExecuteOptions(stopping=stopping or _never)


def _never() -> bool:
    return False


if TYPE_CHECKING:
    from garrison.fleet.management.operations import Operations

    _: type[Operations] = LocalOperations  # mypy checks that it implements the protocol
