"""The twin of the adapter files: paths with digests, and stores that are sets of paths."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from garrison.base.errors import GarrisonError, ModelInvalidError
from garrison.fleet.artifacts.protocol import Content, EntryFault, Staged
from garrison.fleet.values.failure import Failure
from garrison.fleet.values.target import NO_STORE, TargetSpec

__all__ = ["MemoryArtifacts"]


@dataclass(slots=True)
class MemoryArtifacts:
    """`Artifacts` over dictionaries.

    A test changes content by writing another digest, makes it invalid with `refused`, and damages an entry of a store
    with `spoiled`.

    Attributes:
        digests: path to digest of its content. Other paths cannot be read on this machine.
        refused: path to the failure that `check` returns.
        untold: path to what `check` says could not be checked.
        default_store: adapter store of targets that declare none; None if they have none.
        staged: path in a store to digest, for all that was staged.
        stage_errors: digest to the error that `stage` raises.
        spoiled: staged paths whose content was changed from outside.
        shared: staged paths that are hard links, as earlier versions made them.
    """

    digests: dict[str, str] = field(default_factory=dict)
    refused: dict[str, Failure] = field(default_factory=dict)
    untold: dict[str, tuple[str, ...]] = field(default_factory=dict)
    default_store: str | None = None
    staged: dict[str, str] = field(default_factory=dict)
    stage_errors: dict[str, GarrisonError] = field(default_factory=dict)
    spoiled: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)

    def digest(self, path: str) -> str | None:
        return self.digests.get(path)

    def check(self, path: str, target: TargetSpec, base_root: str | None) -> Content | None:
        if failure := self.refused.get(path):
            return Content(path, failure=failure)
        digest = self.digests.get(path)
        return Content(path, digest, untold=self.untold.get(path, ())) if digest is not None else None

    def can_stage(self, target: TargetSpec) -> bool:
        return self._store(target) is not None

    def staged_path(self, target: TargetSpec, digest: str) -> str | None:
        store = self._store(target)
        return f"{store}/{digest}" if store is not None else None

    def holds(self, target: TargetSpec, digest: str) -> bool:
        store = self._store(target)
        here = (path for path, staged in self.staged.items() if staged == digest and path not in self.spoiled)
        return any(path.startswith(f"{store}/") for path in here)

    def stage(self, target: TargetSpec, source: str, digest: str, *, instead_of: str | None = None) -> Staged:
        path = self.staged_path(target, digest)
        if path is None:
            raise AssertionError(f"{target.name} has no adapter store: ask can_stage first")
        if error := self.stage_errors.get(digest):
            raise error
        generation = 2
        while path in self.spoiled or path in self.shared or path == instead_of:
            path = f"{self._store(target)}/{digest}-{generation}"
            generation += 1
        if path in self.staged:
            return Staged(path, "there")
        if self.digests.get(source) != digest and not self.holds(target, digest):
            raise ModelInvalidError(f"the files at {source} are no longer those that were read", hint="Plan again.")
        self.staged[path] = digest
        return Staged(path, "copy")

    def intact(self, path: str) -> bool | None:
        return not self.faults([path]) if path in self.staged or path in self.spoiled else None

    def faults(self, paths: Sequence[str]) -> dict[str, EntryFault]:
        shared = dict.fromkeys(self.shared.intersection(paths), EntryFault.SHARED)
        return shared | dict.fromkeys(self.spoiled.intersection(paths), EntryFault.CHANGED)

    def _store(self, target: TargetSpec) -> str | None:
        if target.adapter_store == NO_STORE:
            return None
        return target.adapter_store or self.default_store
