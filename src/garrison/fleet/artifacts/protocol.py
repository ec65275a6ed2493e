"""The seam to adapter files, and what is known about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from garrison.fleet.values.failure import Failure
from garrison.fleet.values.target import TargetSpec

if TYPE_CHECKING:
    from garrison.models.adapters.adapter import AdapterInfo

__all__ = ["Artifacts", "Content", "EntryFault", "Staged"]


@dataclass(frozen=True, slots=True)
class Content:
    """The adapter at one path, as read on this machine.

    Attributes:
        digest: `models.adapters.adapter.adapter_digest`; None if the files are broken.
        info: the result of the inspection; None if it failed.
        failure: why it must not be loaded; None if nothing is known against it.
        untold: what could not be checked, a sentence each.
    """

    path: str
    digest: str | None = None
    info: "AdapterInfo | None" = None
    failure: Failure | None = None
    untold: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Staged:
    """Files in an adapter store. `how` is `there` (they were staged before), `reflink` or `copy`."""

    path: str
    how: str


class EntryFault(StrEnum):
    """Why an entry of an adapter store must not be loaded from again; completes "its entry in the adapter store …"."""

    CHANGED = "no longer holds what was applied"
    MISSING = "is gone"
    SHARED = "is made of hard links, through which an edit of its source would change it"


class Artifacts(Protocol):
    """Calls block on the disk, except those marked as pure; an event loop calls them in a thread."""

    def digest(self, path: str) -> str | None:
        """Return the digest of the adapter at `path`; fast if its files have not changed since the last call.

        None if the path cannot be read here, holds no adapter, or has files that are links to a place outside it.
        """

    def check(self, path: str, target: TargetSpec, base_root: str | None) -> Content | None:
        """Check everything that can be known before a load; None if `path` cannot be read here.

        That is completeness, rank against `target.max_lora_rank`, what vLLM refuses, and shapes against the base model
        if `base_root` can be read here. The verdict depends on no other property of the target than `max_lora_rank`
        and whether it has an adapter store; only the message names it.
        """

    def can_stage(self, target: TargetSpec) -> bool:
        """Return whether the target has an adapter store that can be written here."""

    def staged_path(self, target: TargetSpec, digest: str) -> str | None:
        """Return the content's path in the target's store, staged or not; None if the target has no store. Pure."""

    def holds(self, target: TargetSpec, digest: str) -> bool:
        """Return whether the target's store has that content, including entries that must not be loaded from again."""

    def stage(self, target: TargetSpec, source: str, digest: str, *, instead_of: str | None = None) -> Staged:
        """Put the files at `source` into the store, complete and durable before the name appears.

        Call it before every load from the store: it marks an existing entry as in use, so that it is not freed before
        the load is recorded. The source is not read then. If the source's content has changed, another entry that
        still has the content is used instead.

        Load from the returned path. It is `staged_path`, or a new name beside it if that entry has a fault: a server
        that has read the spoiled files keeps blocks of them under their path.

        Args:
            instead_of: a path that must not be returned, because a server has it loaded.

        Raises:
            DiskFullError: not enough space.
            ModelInvalidError: no source has the content `digest` any more.
            InvalidError: the store cannot be written.
            LockedError: another command held the store for too long.
        """

    def intact(self, path: str) -> bool | None:
        """Return whether a staged path has no fault; None if it is not in a store."""

    def faults(self, paths: Sequence[str]) -> dict[str, EntryFault]:
        """Return the faults of those `paths` that are entries of a store here. Files are read only if their stamps
        changed."""
