"""The management verbs as requests call them: with deadlines, and changes that outlive whoever asked for them."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from garrison.api.deadline import within
from garrison.base.errors import ConflictError, NotFoundError, NotReadyError
from garrison.fleet.management.operations import Operations
from garrison.fleet.management.requests import AdoptRequest, ApplyRequest
from garrison.fleet.values.view import NoteLevel, SilentView

__all__ = ["FleetCommands", "Notes"]

_READ_SECONDS = 60.0
_LOOK_SECONDS = 300.0
_CHANGE_SECONDS = 3600.0
_STOP_SECONDS = 10.0
_AT_ONCE = 8
_MOST_NOTES = 100

T = TypeVar("T")


class Notes(SilentView):
    """`FleetView` that keeps what the caller should know, the first hundred of it."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str, level: NoteLevel = "warning") -> None:
        if len(self.texts) < _MOST_NOTES:
            self.texts.append(text if level == "warning" else f"{level}: {text}")


class FleetCommands:
    """Belongs to one event loop.

    A change runs as a job of its own: a caller that goes away, or whose deadline passes, does not end it.

    Args:
        operations: what carries the verbs out.
    """

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self._changes: set[asyncio.Task[Any]] = set()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._ends = False

    # Looking

    async def read(self, work: Coroutine[Any, Any, T], what: str) -> T:
        """Read what is on record. Raises NotReadyError at the deadline."""
        return await within(_READ_SECONDS, self._in_turn(work), what)

    async def look(self, work: Coroutine[Any, Any, T], what: str) -> T:
        """Observe targets. Raises NotReadyError at the deadline."""
        return await within(_LOOK_SECONDS, self._in_turn(work), what)

    # Changes

    async def apply(self, request: ApplyRequest, fingerprint: str | None) -> tuple[Any, Notes]:
        """Carry out the plan that was seen.

        Raises:
            ConflictError: it is another one now, or none was given. Details: `plan` and `fingerprint`, as they are now.
        """
        view, stack = Notes(), request.declaration.stack
        if fingerprint is None:
            plan = await self.look(self.operations.plan(request, view, settle=True), f"the fleet of stack {stack}")
            seen = {"fingerprint": plan.fingerprint, "plan": plan.to_json(), "notes": view.texts}
            raise _unseen(f"the plan for stack {stack}", seen)
        if request.mode == "destroy":
            work: Coroutine[Any, Any, Any] = self.operations.destroy(
                stack, view, fingerprint=fingerprint, stopping=self._stopping
            )
        else:
            work = self.operations.apply(request, view, fingerprint=fingerprint, stopping=self._stopping)
        return await self._change(work, f"{request.mode} {stack}"), view

    async def adopt(self, request: AdoptRequest, fingerprint: str | None) -> Any:
        """Adopt the adapters that were seen. Raises ConflictError as `apply`, with the `addition`."""
        if fingerprint is None:
            found = await self.look(self.operations.propose_adoption(request, Notes()), "the fleet")
            raise _unseen(f"what would be adopted into {request.stack}", found.to_json())
        work = self.operations.adopt(request, Notes(), fingerprint=fingerprint)
        return await self._change(work, f"adopt into {request.stack}")

    async def forget(self, target: str, fingerprint: str | None, *, force: bool) -> Any:
        """Forget a target. Raises ConflictError as `apply`, with what would be lost."""
        if fingerprint is None:
            loss = await self.look(self.operations.propose_forgetting(target, Notes(), force=force), f"target {target}")
            raise _unseen(
                f"what would be lost with target {target}", {**loss.to_json(), "fingerprint": loss.fingerprint}
            )
        work = self.operations.forget(target, Notes(), fingerprint=fingerprint, force=force)
        return await self._change(work, f"forget {target}")

    # On record

    async def require_stack(self, name: str) -> dict[str, Any]:
        """Return the row of a stack. Raises NotFoundError."""
        rows = (await self.read(self.operations.inventory("stacks"), "the database")).to_json()
        found = next((one for one in rows if one["name"] == name), None)
        if found is None:
            raise NotFoundError(f"there is no stack {name!r}", hint="GET /api/v1/stacks lists them.")
        return found

    async def targets(self, names: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """Return the specs of those of `names` that are on record."""
        found = await self.read(self.operations.targets(list(names)), "the database") if names else ()
        return {one.name: one.spec for one in found}

    def request_stop(self) -> None:
        """Start no further action, so that requests in progress can be answered."""
        self._ends = True

    async def shutdown(self) -> None:
        """Wait some seconds for actions in progress. The next apply goes on there."""
        self._ends = True
        if self._changes:
            await asyncio.wait(self._changes, timeout=_STOP_SECONDS)
        for one in self._changes:
            one.cancel()

    def _stopping(self) -> bool:
        return self._ends

    async def _in_turn(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with self._turns:
                return await work
        finally:
            work.close()  # one that never had its turn would warn that nobody awaited it

    async def _change(self, work: Coroutine[Any, Any, T], what: str) -> T:
        if self._ends:
            work.close()
            raise NotReadyError("the server ends", hint="Ask its successor.", details={"retry_after": 5})
        task = asyncio.create_task(work, name=what)
        self._changes.add(task)
        task.add_done_callback(self._ended)
        return await within(_CHANGE_SECONDS, asyncio.shield(task), f"{what} goes on, and")

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may have gone; the history has what was done


def _unseen(what: str, details: Mapping[str, Any]) -> ConflictError:
    return ConflictError(
        f"{what} was not confirmed", hint="Nothing was done. Look at it, and send its fingerprint.", details=details
    )
