"""What is known of an adapter's files, and the seam to where they are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from garrison.fleet.values.failure import Failure
from garrison.fleet.values.target import TargetSpec

if TYPE_CHECKING:
    from garrison.models.adapters.inspect import AdapterInfo

__all__ = ["Artifacts", "Content", "EntryFault", "Staged"]


@dataclass(frozen=True, slots=True)
class Content:
    """The adapter at one path, read here.

    Attributes:
        digest: `models.adapter.adapter_digest`; None where the files are broken.
        info: what the inspection found; None where it failed, or when only the digest was asked for.
        failure: why it must not be loaded.
    """

    path: str
    digest: str | None = None
    info: "AdapterInfo | None" = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Staged:
    """Files in an adapter store. `how`: `there`, `reflink` or `copy`."""

    path: str
    how: str


class EntryFault(StrEnum):
    """Why an entry of an adapter store must not be loaded from again; completes "its entry in the adapter store …"."""

    CHANGED = "no longer holds what was applied"
    MISSING = "is gone"
    SHARED = "is made of hard links, through which an edit of its source would change it"


class Artifacts(Protocol):
    """Calls block on the disk, except where they say that they are pure; callers in an event loop use a thread."""

    def digest(self, path: str) -> str | None:
        """Of the adapter at `path`, quickly if its files have not changed since it was last asked; None where the path
        cannot be read here, holds no adapter, or has files that are links to somewhere outside it."""

    def check(self, path: str, target: TargetSpec, base_root: str | None) -> Content | None:
        """Everything that can be told before a load: completeness, rank against `target.max_lora_rank`, shapes against
        the base model where `base_root` can be read here, what vLLM refuses. None where `path` cannot be read here.

        Of the target, the verdict depends on `max_lora_rank` and on whether it has an adapter store, on nothing else;
        only the message names it."""

    def can_stage(self, target: TargetSpec) -> bool:
        """Whether the target has an adapter store that can be written here."""

    def staged_path(self, target: TargetSpec, digest: str) -> str | None:
        """Where the content would be in the target's store; None where it has none. Pure."""

    def holds(self, target: TargetSpec, digest: str) -> bool:
        """Whether the target's store has that content, be it in an entry that must not be loaded from again."""

    def stage(self, target: TargetSpec, source: str, digest: str, *, instead_of: str | None = None) -> Staged:
        """Put the files at `source` into the store, whole and durable before the name appears. Where the source has
        other content by now, another entry that still has it stands in for it.

        Call it before every load from the store: what is there already is marked as in use, so that nobody frees it
        before the load is on record, and its source is not looked at.

        Load from the path that is given back. It is `staged_path`, or a fresh name beside it where that entry has a
        fault: a server that has read the spoiled files keeps blocks of them under their path.

        Args:
            instead_of: a path that must not be given back, because a server has it loaded.

        Raises:
            DiskFullError: no room.
            ModelInvalidError: the content is no longer what `digest` says.
            InvalidError: the store cannot be written.
            LockedError: another command held the store for too long.
        """

    def intact(self, path: str) -> bool | None:
        """Whether a staged path has no fault; None where it is no path of a store."""

    def faults(self, paths: Sequence[str]) -> dict[str, EntryFault]:
        """Of those of `paths` that are entries of a store here, and have one. Files are read where their stamps changed
        only."""
