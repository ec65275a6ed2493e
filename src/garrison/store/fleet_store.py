"""The seam to the database: what the fleet asks of it, in the fleet's words.

Every method is one transaction and blocks, for seconds at worst; callers in an event loop use a thread. What was
written is on the disk when a method returns. Times are handed in. `MemoryStore` is the in-memory twin, `SqlStore` the
real one; one suite of tests runs on both.

A store that cannot do what it is asked raises a leaf of GarrisonError: LockedError (another program is writing),
DiskFullError, UnreachableError (the server is down), DeniedError, InvalidError (damaged, or not Garrison's).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from garrison.store.records import (
    ActionRecord,
    CommandRecord,
    Event,
    Key,
    Lease,
    Observation,
    Resource,
    StackRecord,
    TargetRecord,
)

__all__ = ["FleetStore"]


class FleetStore(Protocol):
    # --- stacks

    def stacks(self) -> list[StackRecord]:
        """By name."""

    def stack(self, name: str) -> StackRecord | None: ...

    def declare(
        self,
        stack: StackRecord,
        targets: Sequence[TargetRecord],
        command: CommandRecord,
        actions: Sequence[ActionRecord],
        events: Sequence[Event] = (),
        *,
        seen: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> StackRecord:
        """The intention, before any effect: stack (its version is counted up), the specs of `targets` (how they were
        seen is kept; a new one is stored whole), the command and its actions. The stack as it is stored.

        Args:
            seen: the specs on record when this was decided, by target.

        Raises:
            ConflictError: another command has declared one of `targets` otherwise since. Nothing is written.
        """

    def drop_stack(self, name: str) -> None:
        """Remove the stack's row; its history stays.

        Raises:
            ConflictError: it still owns something.
        """

    # --- targets

    def targets(self, names: Collection[str] | None = None) -> list[TargetRecord]:
        """By name; all when None."""

    def respecify(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        """Replace the specs of targets. One that was forgotten meanwhile is left out."""

    def sight(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        """How targets were seen: all but `spec` and `declared_at`. One that was forgotten meanwhile is left out. What
        changed becomes an observation, at `last_checked`."""

    def touch(self, names: Collection[str], at: datetime) -> list[str]:
        """They were seen again, unchanged: `last_seen` and `last_checked`. Cheap for thousands. Those on record as
        unreachable were seen otherwise by somebody: they are left as they are, and given back, by name."""

    def forget(self, target: str, at: datetime, event: Event) -> int:
        """Drop the target; its owned resources get a version `forgotten`, with the event's command and cause. How many
        there were."""

    def drop_targets(self, names: Collection[str]) -> None:
        """Remove the rows of targets. One that a stack declares by now, or at which something is owned, stays: another
        command may have declared it since the caller looked."""

    def observations(
        self, *, target: str | None = None, since: datetime | None = None, limit: int = 200
    ) -> list[Observation]:
        """Newest first."""

    # --- resources

    def resources(self, *, stack: str | None = None, target: str | None = None) -> list[Resource]:
        """The newest version of each owned resource, by key."""

    def versions(self, key: Key) -> list[Resource]:
        """All versions that are kept, oldest first."""

    def put(self, resources: Sequence[Resource], events: Sequence[Event] = ()) -> None:
        """Append a version each; the store numbers them, from 1 for a key it has nothing of."""

    # --- commands and actions

    def begin(self, command: CommandRecord, actions: Sequence[ActionRecord], events: Sequence[Event] = ()) -> None:
        """A command that changes no declaration."""

    def save_action(
        self, action: ActionRecord, resources: Sequence[Resource] = (), events: Sequence[Event] = ()
    ) -> None:
        """The action's new state, and in the same transaction what it made of resources. One that the command did not
        begin with is added to it.

        Raises:
            InternalError: there is no such command.
        """

    def finish(self, command: CommandRecord, events: Sequence[Event] = ()) -> None:
        """State, end and summary of a command.

        Raises:
            InternalError: there is no such command.
        """

    def commands(self, *, stack: str | None = None, limit: int = 50) -> list[CommandRecord]:
        """Newest first."""

    def unfinished(self, stack: str) -> list[tuple[CommandRecord, list[ActionRecord]]]:
        """Commands in state `running`, oldest first, with their actions in order."""

    def actions(self, command: str) -> list[ActionRecord]:
        """In order."""

    # --- leases

    def acquire(self, lease: Lease, now: datetime, *, instead_of: str | None = None) -> Lease | None:
        """Take the stack if nobody has it, if the holder's lease has expired, or if its token is `instead_of` (a
        holder known to be dead). None when it is ours now, else the lease of who has it. Of two who ask at once, one
        gets it."""

    def renew(self, token: str, expires_at: datetime) -> bool:
        """False when it is no longer ours. One that has expired and was not taken is ours again."""

    def release(self, token: str) -> None: ...

    def leases(self) -> list[Lease]: ...

    # --- events

    def add_events(self, events: Iterable[Event]) -> None: ...

    def events(
        self,
        *,
        stack: str | None = None,
        target: str | None = None,
        name: str | None = None,
        kinds: Collection[str] | None = None,
        since: datetime | None = None,
        after_id: int | None = None,
        limit: int = 200,
    ) -> list[Event]:
        """Newest first; with `after_id`, oldest first from there on, for who follows."""

    # --- upkeep

    def revision(self) -> int:
        """Grows whenever stacks, target specs or resources change: who keeps a copy compares."""

    def identity(self) -> str:
        """A random id of this database, made with it: who owns an adapter store is known by it."""

    def content(self, path: str, stamp: str) -> str | None:
        """The digest on record for the content at `path`, if its stamp (sizes and times of the files) is the same."""

    def put_content(self, path: str, stamp: str, digest: str) -> None: ...

    def prune(self, before: datetime) -> int:
        """Delete what is older: events, observations but each target's last, ended commands with their actions, and
        resource versions, but never the version that is owned, nor what a stack, an owned resource or a running command
        refers to. How many rows went."""

    def close(self) -> None: ...
