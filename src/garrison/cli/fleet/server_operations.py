"""The management verbs, carried out by another server: `StackOperations` over its HTTP API."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

from garrison.base.errors import ConflictError, InvalidError, NotFoundError, UnreachableError, UsageError
from garrison.cli.server.client import Answer, ServerClient, part
from garrison.fleet.management.operations import StackOperations
from garrison.fleet.management.requests import (
    ApplyRequest,
    Destroyed,
    HistoryFilter,
    Listing,
    Stopping,
    TargetPlace,
)
from garrison.fleet.manifest.dump import manifest_body
from garrison.fleet.operations.apply import Applied
from garrison.fleet.report.drifts import Drifts
from garrison.fleet.report.query import Term
from garrison.fleet.report.status import FleetStatus
from garrison.fleet.values.plan import Plan
from garrison.fleet.values.view import FleetView, NoteLevel
from garrison.net.thread_pool import ThreadPool
from garrison.store.records import Event

__all__ = ["ServerOperations", "body_of"]

T = TypeVar("T")

_LOOK_SECONDS = 360.0
"""A look at the fleet, which the server ends after 300 s."""
_CHANGE_SECONDS = 3660.0
"""A change, whose answer the server waits for for an hour."""
_TRIES = 5
_FOLLOW_SECONDS = 1.0
_PAGE = 1000
_ROWS = 10_000
_MOST_EVENTS = 10_000
_LONGEST_QUERY = 4000
_LEVELS: tuple[NoteLevel, ...] = ("info", "error")


class ServerOperations:
    """`StackOperations` on a server elsewhere. A call that is cancelled is left behind; the server may go on with it.

    Args:
        client: closed by whoever opened it.
    """

    def __init__(self, client: ServerClient) -> None:
        self._client = client
        self._pool = ThreadPool("garrison-server", 1)
        self._ahead: timedelta | None = None  # of the server's clock
        self.place = client.place

    # --- declared

    async def plan(self, request: ApplyRequest, view: FleetView, *, settle: bool = False) -> Plan:
        view.observing(request.declaration.targets)
        if settle or request.mode == "destroy":
            return await self._proposed(request, view)
        body = await self._call("POST", "/plan", body=body_of(request), seconds=_LOOK_SECONDS)
        return self._planned(body, view)

    async def apply(
        self,
        request: ApplyRequest,
        view: FleetView,
        *,
        fingerprint: str | None = None,
        stopping: Stopping | None = None,
    ) -> Applied:
        body = await self._carried_out(request, fingerprint, view)
        applied = self._understood(Applied.from_json, body)
        _tell(applied, body, view)
        return applied

    async def carry_owed(
        self,
        stack: str,
        applied: Applied,
        view: FleetView,
        *,
        waiting: Callable[[int, float], None],
        stopping: Stopping | None = None,
    ) -> NoReturn:
        raise UsageError(f"{self.place} carries owed actions out by itself", hint="Leave out --watch.")

    async def destroy(
        self, stack: str, view: FleetView, *, fingerprint: str | None = None, stopping: Stopping | None = None
    ) -> Destroyed:
        body = await self._carried_out(ApplyRequest.destroying(stack), fingerprint, view)
        done = self._understood(Destroyed.from_json, body)
        _tell(done.applied, body, view)
        return done

    # --- read

    async def status(self, view: FleetView, *, stack: str | None = None, cached: bool = False) -> FleetStatus:
        params = _given(stack=stack, look=not cached)
        return self._understood(
            FleetStatus.from_json, await self._call("GET", "/status", params=params, seconds=_LOOK_SECONDS)
        )

    async def drift(self, view: FleetView, *, stack: str | None = None) -> Drifts:
        body = await self._call("GET", "/drift", params=_given(stack=stack), seconds=_LOOK_SECONDS)
        return self._understood(Drifts.from_json, body)

    async def inventory(self, noun: str, query: str = "") -> Listing:
        from garrison.fleet.report.inventory_rows import Row, row_from_json

        rows: list[Row] = []
        while True:
            params = {"query": query, "limit": _ROWS, "offset": len(rows)}
            answer = await self._exchange("GET", f"/inventory/{noun}", params=params)
            page = self._understood(lambda bodies: [row_from_json(noun, one) for one in bodies], answer.body)
            rows += page
            total, on_record, targets = self._understood(_totals, answer.headers)
            if not page or len(rows) >= total:
                return Listing(rows=tuple(rows), on_record=on_record, targets=targets, now=self.now())

    async def places(self, names: Collection[str], *, stack: str) -> tuple[TargetPlace, ...]:
        found = await self._places(str(Term("stack", (stack,))))
        if left := sorted(set(names) - found.keys()):
            query = " ".join(str(Term("name", (name,))) for name in left)
            more = await self._places(query if len(query) <= _LONGEST_QUERY else "")
            found |= {name: more[name] for name in left if name in more}
        return tuple(found.values())

    def now(self) -> datetime:
        if self._ahead is None:
            self._time(self._client.exchange("GET", "/version"))
        return datetime.now(UTC) + (self._ahead or timedelta())

    async def history(
        self, chosen: HistoryFilter, *, limit: int = 100, after_id: int | None = None
    ) -> tuple[Event, ...]:
        if limit > _MOST_EVENTS:
            raise UsageError(
                f"a server returns at most {_MOST_EVENTS:,} events", hint=f"Use --limit {_MOST_EVENTS} or less."
            )
        params = _given(
            stack=chosen.stack,
            target=chosen.target,
            name=chosen.name,
            kind=list(chosen.kinds) if chosen.kinds else None,
            since=chosen.since.isoformat() if chosen.since else None,
            after=after_id,
            limit=limit,
        )
        from garrison.fleet.hooks.queues import event_from_json

        body = await self._call("GET", "/history", params=params)
        return self._understood(lambda found: tuple(map(event_from_json, found)), body)

    async def follow(self, chosen: HistoryFilter, *, after_id: int) -> AsyncIterator[Event]:
        last = after_id
        while True:
            page = await self.history(chosen, limit=_PAGE, after_id=last)
            for event in page:
                last = event.id
                yield event
            if len(page) < _PAGE:
                await asyncio.sleep(_FOLLOW_SECONDS)

    # ---

    async def _proposed(self, request: ApplyRequest, view: FleetView) -> Plan:
        """Return the plan that an apply would carry out now: the answer to one that confirms nothing."""
        try:
            await self._change(request, None, _LOOK_SECONDS)
        except ConflictError as error:
            if "plan" not in error.details:
                raise
            return self._planned(error.details, view)
        raise self._stranger("it applied what nobody confirmed")

    def _planned(self, body: Mapping[str, Any], view: FleetView) -> Plan:
        drafted = self._understood(lambda found: Plan.from_json(found["plan"]), body)
        _notes(body, view)
        view.planned(drafted)
        return drafted

    async def _carried_out(self, request: ApplyRequest, fingerprint: str | None, view: FleetView) -> Any:
        """Carry out the plan of that fingerprint; without one, whatever the plan is by then."""
        if fingerprint is not None:
            return await self._change(request, fingerprint, _CHANGE_SECONDS)
        plan = await self._proposed(request, view)
        for left in reversed(range(_TRIES)):
            try:
                return await self._change(request, plan.fingerprint, _CHANGE_SECONDS)
            except ConflictError as error:
                if "plan" not in error.details or not left:
                    raise
                plan = self._planned(error.details, view)
        raise AssertionError("unreachable")

    async def _change(self, request: ApplyRequest, fingerprint: str | None, seconds: float) -> Any:
        confirmed = {"fingerprint": fingerprint}
        if request.mode != "destroy":
            return await self._call("POST", "/apply", body=body_of(request) | confirmed, seconds=seconds)
        stack = request.declaration.stack
        return await self._call("POST", f"/stacks/{part(stack)}/destroy", body=confirmed, seconds=seconds)

    async def _places(self, query: str) -> dict[str, TargetPlace]:
        body = await self._call("GET", "/targets", params={"query": query})

        def read(rows: Any) -> dict[str, TargetPlace]:
            return {
                one["name"]: TargetPlace(
                    name=one["name"],
                    base_url=one["base_url"],
                    insecure=one["insecure"],
                    last_seen=datetime.fromisoformat(one["last_seen"]) if one["last_seen"] else None,
                )
                for one in rows
            }

        return self._understood(read, body)

    async def _call(self, method: str, path: str, **more: Any) -> Any:
        return (await self._exchange(method, path, **more)).body

    async def _exchange(
        self, method: str, path: str, *, body: Any = None, params: Any = None, seconds: float = 90.0
    ) -> Answer:
        def call() -> Answer:
            return self._client.exchange(method, path, body=body, params=params, timeout=seconds)

        try:
            answer = await self._pool.run(call, f"{method} {path} of {self.place}")
        except NotFoundError as error:
            if error.message == HTTPStatus.NOT_FOUND.phrase:  # not of the thing asked about, but of the path
                raise self._stranger(f"it knows no {method} {path}") from None
            raise InvalidError(error.message, hint="`garrison status` shows the stacks.") from None
        self._time(answer)
        return answer

    def _time(self, answer: Answer) -> None:
        try:
            self._ahead = parsedate_to_datetime(answer.headers["date"]) - datetime.now(UTC)
        except (KeyError, ValueError, TypeError):
            self._ahead = timedelta()

    def _understood(self, read: Callable[[Any], T], body: Any) -> T:
        """Return what `read` makes of an answer. Raises UnreachableError where it is none that this program knows."""
        try:
            return read(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._stranger(f"its answer is not understood ({type(error).__name__}: {error})") from None

    def _stranger(self, why: str) -> UnreachableError:
        return UnreachableError(
            f"{self.place}: {why}", hint="Check that this is a Garrison server, and of the same version."
        )


def body_of(request: ApplyRequest) -> dict[str, Any]:
    options = request.options
    return {
        "manifest": manifest_body(request.declaration),
        "mode": request.mode,
        "force": options.force,
        "adopt": options.adopt,
        "accept_stale_cache": options.accept_stale_cache,
    }


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _notes(body: Mapping[str, Any], view: FleetView) -> None:
    for text in body.get("notes", ()):
        level = next((one for one in _LEVELS if text.startswith(f"{one}: ")), None)
        if level is None:
            view.note(text)
        else:
            view.note(text.removeprefix(f"{level}: "), level)


def _tell(applied: Applied, body: Mapping[str, Any], view: FleetView) -> None:
    """Show what was done, all at once."""
    _notes(body, view)
    for outcome in applied.outcomes:
        view.ended(outcome)


def _totals(headers: Mapping[str, str]) -> tuple[int, int, int]:
    """Return how many rows match, how many there are, and how many targets."""
    return int(headers["x-total-count"]), int(headers["x-on-record"]), int(headers["x-targets"])


_: type[StackOperations] = ServerOperations  # mypy checks that it implements the protocol
