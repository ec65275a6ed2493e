"""The seam to the database: what the fleet asks of it, in the fleet's words.

Every method is one transaction and blocks; callers in an event loop use a thread. Times are handed in. `MemoryStore`
is the in-memory twin, `SqlStore` the real one; one suite of tests runs on both.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Protocol

from garrison.store.records import (
    ActionRecord,
    CommandRecord,
    Event,
    Key,
    Lease,
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
    ) -> StackRecord:
        """The intention, before any effect: stack (its version is counted up), the specs of `targets` (how they were
        seen is kept), the command and its actions."""

    def drop_stack(self, name: str) -> None:
        """Remove the stack's row; its history stays. Nothing may be owned by it any more."""

    # --- targets

    def targets(self, names: Collection[str] | None = None) -> list[TargetRecord]:
        """By name; all when None."""

    def sight(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        """How targets were seen: all but `spec` and `declared_at`. One that was forgotten meanwhile is left out."""

    def touch(self, names: Collection[str], at: datetime) -> None:
        """They were seen again, unchanged: `last_seen` and `last_checked`. Cheap for thousands."""

    def forget(self, target: str, at: datetime, event: Event) -> int:
        """Drop the target; its owned resources get a version `forgotten`. How many there were."""

    def drop_targets(self, names: Collection[str]) -> None:
        """Remove the rows of targets that no stack declares and that owe nothing."""

    # --- resources

    def resources(self, *, stack: str | None = None, target: str | None = None) -> list[Resource]:
        """The newest version of each owned resource, by key."""

    def versions(self, key: Key) -> list[Resource]:
        """All versions, oldest first."""

    def put(self, resources: Sequence[Resource], events: Sequence[Event] = ()) -> None:
        """Append a version each; the store numbers them."""

    # --- commands and actions

    def begin(self, command: CommandRecord, actions: Sequence[ActionRecord], events: Sequence[Event] = ()) -> None:
        """A command that changes no declaration."""

    def save_action(
        self, action: ActionRecord, resources: Sequence[Resource] = (), events: Sequence[Event] = ()
    ) -> None:
        """The action's new state, and in the same transaction what it made of resources."""

    def finish(self, command: CommandRecord, events: Sequence[Event] = ()) -> None:
        """State, end and summary of a command."""

    def commands(self, *, stack: str | None = None, limit: int = 50) -> list[CommandRecord]:
        """Newest first."""

    def unfinished(self, stack: str) -> list[tuple[CommandRecord, list[ActionRecord]]]:
        """Commands in state `running`, oldest first, with their actions in order."""

    def actions(self, command: str) -> list[ActionRecord]:
        """In order."""

    # --- leases

    def acquire(self, lease: Lease, now: datetime, *, instead_of: str | None = None) -> Lease | None:
        """Take the stack if nobody has it, if the holder's lease has expired, or if its token is `instead_of` (a
        holder known to be dead). None when it is ours now, else the lease of who has it."""

    def renew(self, token: str, expires_at: datetime) -> bool:
        """False when it is no longer ours."""

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
        """Delete events, ended commands and superseded resource versions older than that, but never what a current
        resource or a running command refers to. How many rows went."""

    def close(self) -> None: ...
