"""Makes the records of one action: that it was begun, before any effect, and how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from garrison.base.clock import Clock
from garrison.fleet.execute.group_commit import GroupCommit
from garrison.fleet.values import events
from garrison.fleet.values.failure import Failure
from garrison.fleet.values.plan import Action
from garrison.store.records import ActionRecord, ActionResult, ActionState, Event, Operation, Resource

__all__ = ["ActionLog"]


class ActionLog:
    """The record of one action, from planned to ended.

    Args:
        record: the record that was stored with its command.

    Attributes:
        stack: the stack that the action belongs to.
    """

    def __init__(self, commits: GroupCommit, clock: Clock, stack: str, action: Action, record: ActionRecord) -> None:
        self._commits = commits
        self._clock = clock
        self.stack = stack
        self._action = action
        self.record = record

    def intention(self) -> ActionResult:
        """Return what to store before anything is done. A conflict noted by the plan was overruled by now."""
        return ActionResult(action=self._started())

    def withdrawn(self) -> ActionResult:
        """Return what to store if nothing was sent after the intention was stored: the action as it was planned."""
        return ActionResult(action=self.record)

    def begin(self) -> None:
        """Count the action as begun. Its intention is on disk."""
        self.record = self._started()

    async def loads_from(self, path: str) -> None:
        """Store that the files are at another path than planned, since the entry there could not be used."""
        after = {**(self.record.after or {}), "served_path": path}
        self.record = replace(self.record, after=after)
        await self._commits.save(ActionResult(action=self.record))

    async def keep(self, step: str, resources: Sequence[Resource]) -> None:
        """Store a first effect that was verified; the action continues."""
        self.record = replace(self.record, step=step)
        await self._commits.save(ActionResult(action=self.record, resources=tuple(resources)))

    def ended(
        self,
        state: ActionState,
        *,
        step: str = "",
        resources: Sequence[Resource] = (),
        failure: Failure | None = None,
        gap_ms: float | None = None,
        told: bool = False,
    ) -> ActionResult:
        """Return what to store at the end: the action, the versions it made, and its event, in one transaction.

        There is no event if it was told already.

        `STARTED` is an end too: a later look at the target settles the action.
        """
        now = self._clock.now()
        open_end = state is ActionState.STARTED
        self.record = replace(
            self.record,
            state=state,
            step=step or self.record.step,
            error=failure.to_json() if failure else None,
            gap_ms=gap_ms,
            started_at=self.record.started_at or (None if state is ActionState.SKIPPED else now),
            ended_at=None if open_end else now,
        )
        silent = told or state is ActionState.SKIPPED
        made = () if silent else (self._event(state, resources, failure),)
        return ActionResult(action=self.record, resources=tuple(resources), events=made)

    def version(
        self, operation: Operation, *, served_path: str, parent: str | None, cause: str | None = None
    ) -> Resource:
        """Return a version of the action's own resource: as declared, or as recorded if the action removes it."""
        action = self._action
        if action.desired is not None:
            spec: Mapping[str, Any] = action.desired.to_json()
        else:
            spec = action.recorded.spec if action.recorded else {}
        return Resource(
            key=action.key,
            stack=self.stack,
            label=action.label,
            operation=operation,
            spec=spec,
            served_path=served_path,
            parent=parent,
            at=self._clock.now(),
            command=self.record.command,
            cause=cause,
        )

    def gone(self, resource: Resource, operation: Operation, cause: str | None = None) -> Resource:
        """Return a version saying that `resource` is no longer owned, or no longer served."""
        now = self._clock.now()
        return replace(resource, operation=operation, at=now, command=self.record.command, cause=cause)

    def _started(self) -> ActionRecord:
        now = self._clock.now()
        return replace(self.record, state=ActionState.STARTED, started_at=now, ended_at=None, error=None)

    def _event(self, state: ActionState, resources: Sequence[Resource], failure: Failure | None) -> Event:
        done = state is ActionState.DONE
        after = next((one for one in resources if one.key == self._action.key and one.operation.serves), None)
        failed = {"step": self.record.step} | failure.to_json() if failure else None
        return Event(
            at=self._clock.now(),
            kind=events.ACTION_DONE if done else events.ACTION_FAILED,
            stack=self.stack,
            target=self._action.target,
            name=self._action.name,
            cause=f"{self._action.kind}: {self._action.reason}",
            before=_brief(self.record.before),
            after=_served(after) if done else failed,
            command=self.record.command,
        )


def _served(after: Resource | None) -> Mapping[str, Any] | None:
    if after is None:
        return None
    return {"served_path": after.served_path, "parent": after.parent, "digest": after.spec.get("digest")}


def _brief(given: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Drop the declaration, of which only the digest is news."""
    if given is None:
        return None
    digest = (given.get("spec") or {}).get("digest")
    brief = {name: given[name] for name in ("name", "served_path", "parent") if name in given}
    return brief | {"digest": digest}
