"""The protocols of the management verbs. Errors are leaves of GarrisonError.

A change is confirmed by fingerprint: `plan`, `propose_adoption` and `propose_forgetting` return what would be done, and
the change is given the fingerprint of what was confirmed. It decides again, and raises ConflictError where the outcome
is another one. Nothing is held in between. Without a fingerprint it does what is to be done by then.
"""

from collections.abc import AsyncIterator, Callable, Collection
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

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
from garrison.fleet.values.plan import Plan
from garrison.fleet.values.view import FleetView
from garrison.store.records import Event, TargetRecord

if TYPE_CHECKING:  # the server starts without them
    from garrison.fleet.operations.adopt import Adopted, Adoption
    from garrison.fleet.operations.apply import Applied
    from garrison.fleet.operations.discover import Discovered
    from garrison.fleet.operations.forget import Forgotten, Loss
    from garrison.fleet.report.drifts import Drifts
    from garrison.fleet.report.extract import Extract
    from garrison.fleet.report.status import FleetStatus

__all__ = ["Operations", "StackOperations"]


class StackOperations(Protocol):
    """The verbs that can be carried out by a server elsewhere, too.

    What each method does is documented at the function of the same name in `operations` and `report`.
    """

    @property
    def place(self) -> str | None:
        """The address of the server that carries the verbs out; None when this process does."""

    async def plan(self, request: ApplyRequest, view: FleetView, *, settle: bool = False) -> Plan:
        """Return what `apply` would do. Nothing is sent that changes a target.

        `settle`: settle killed commands and store what was observed first, as an apply does, which is then sure to find
        the same plan. Without it nothing is recorded."""

    async def apply(
        self,
        request: ApplyRequest,
        view: FleetView,
        *,
        fingerprint: str | None = None,
        stopping: Stopping | None = None,
    ) -> "Applied": ...

    async def carry_owed(
        self,
        stack: str,
        applied: "Applied",
        view: FleetView,
        *,
        waiting: Callable[[int, float], None],
        stopping: Stopping | None = None,
    ) -> "Applied":
        """Wait for the targets on which `applied` owes actions, carry those out, and return `applied` brought up to
        date. `waiting` is called before each wait with the number of owed actions and the seconds.

        Raises UsageError where a server carries the verbs out: it does this by itself."""

    async def destroy(
        self, stack: str, view: FleetView, *, fingerprint: str | None = None, stopping: Stopping | None = None
    ) -> Destroyed: ...

    async def status(self, view: FleetView, *, stack: str | None = None, cached: bool = False) -> "FleetStatus": ...

    async def drift(self, view: FleetView, *, stack: str | None = None) -> "Drifts": ...

    async def inventory(self, noun: str, query: str = "") -> Listing:
        """Return the rows of `adapters`, `targets`, `models` or `stacks` that match; see `report.query`."""

    async def places(self, names: Collection[str], *, stack: str) -> tuple[TargetPlace, ...]:
        """Return where the targets are that `targets` returns, and when they were last seen."""

    def now(self) -> datetime:
        """Return the time by the clock of the times on record."""

    async def history(
        self, chosen: HistoryFilter, *, limit: int = 100, after_id: int | None = None
    ) -> tuple[Event, ...]:
        """Return the newest events, or the first ones after `after_id`; oldest first."""

    def follow(self, chosen: HistoryFilter, *, after_id: int) -> AsyncIterator[Event]:
        """Yield the events after `after_id`, then those that happen, whichever process records them. None is lost."""


class Operations(StackOperations, Protocol):
    """All verbs."""

    async def propose_adoption(self, request: AdoptRequest, view: FleetView) -> "Adoption": ...

    async def adopt(self, request: AdoptRequest, view: FleetView, *, fingerprint: str | None = None) -> "Adopted": ...

    async def propose_forgetting(self, target: str, view: FleetView, *, force: bool = False) -> "Loss": ...

    async def forget(
        self, target: str, view: FleetView, *, fingerprint: str | None = None, force: bool = False
    ) -> "Forgotten": ...

    async def discover(self, request: DiscoverRequest, view: FleetView) -> tuple["Discovered", ...]: ...

    async def extract(self, query: str = "", *, stack: str | None = None) -> "Extract": ...

    async def targets(self, names: Collection[str] = (), *, stack: str | None = None) -> tuple[TargetRecord, ...]:
        """Return those of `names` that are on record, and the targets that `stack` declares or owns something at."""
