"""What the disk knows about declared adapters, before anything is sent to a target.

The disk is asked in batches: most answers come from memory or a few stats, and a hop to its thread costs more than they
do. Between two batches others get their turn.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar

from garrison.fleet.artifacts.disk import is_here
from garrison.fleet.artifacts.protocol import Artifacts
from garrison.fleet.context import Fleet
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.plan import Action, ActionKind, Way
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.versions import public_name
from garrison.store.records import Resource

__all__ = ["check_files", "staging_targets", "with_digests"]

_BATCH = 100
_LOADS = (Way.LOAD, Way.SWAP, Way.LOAD_THEN_UNLOAD)

Item = TypeVar("Item")
Result = TypeVar("Result")


async def with_digests(fleet: Fleet, declaration: Declaration, owned: Iterable[Resource]) -> Declaration:
    """Return `declaration` with the digest of each adapter whose content can be read here.

    Where it can no longer be read, and the adapter store still holds the content that was applied, the adapter keeps
    that digest. So does a versioned one in any case: its name on the target follows from it.
    """
    applied = _last_applied(owned)
    digests: dict[str, str | None] = {}
    for spec in declaration.adapters:
        if spec.lora_path not in digests:  # a hop each: a first digest reads the whole file
            digests[spec.lora_path] = await fleet.disk(fleet.artifacts.digest, spec.lora_path)
    files = _Files(fleet.artifacts)

    def complete(spec: AdapterDeclaration) -> AdapterDeclaration:
        digest = digests[spec.lora_path]
        last = applied.get((spec.target, spec.lora_name), {})
        if digest is None and last.get("digest") and last.get("lora_path") == spec.lora_path:
            held = files.kept(declaration.targets[spec.target], str(last["digest"]))
            digest = str(last["digest"]) if spec.versioned else held
        return spec if digest == spec.digest else replace(spec, digest=digest)

    return replace(
        declaration, adapters=tuple(await _in_batches(fleet, complete, declaration.adapters, attrgetter("lora_path")))
    )


def _last_applied(owned: Iterable[Resource]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return the specs of what was applied last, by target and the name that clients use."""
    versions: dict[tuple[str, str], list[Resource]] = {}
    for one in owned:
        versions.setdefault((one.key.target, public_name(one)), []).append(one)
    return {place: max(some, key=attrgetter("at")).spec for place, some in versions.items()}


async def staging_targets(fleet: Fleet, targets: Mapping[str, TargetSpec]) -> set[str]:
    """Return the names of the targets that have an adapter store which can be written here."""
    found = await _in_batches(fleet, fleet.artifacts.can_stage, targets.values(), attrgetter("base_url"))
    return {name for name, can in zip(targets, found, strict=True) if can}


async def check_files(
    fleet: Fleet, actions: Sequence[Action], targets: Mapping[str, TargetSpec], sightings: Mapping[str, Sighting]
) -> tuple[list[Action], list[str]]:
    """Return `actions` with loads blocked whose files cannot be loaded, and what could not be checked, a line each.

    vLLM answers 200 to an adapter that does not fit and then serves garbage, so whatever the files tell is said before
    anything is sent.
    """
    files = _Files(fleet.artifacts)

    def checked(action: Action) -> Action:
        if action.desired is None or action.way not in _LOADS:
            return action
        seen = sightings[action.target]
        base = seen.served.get(seen.base) if seen.base else None
        failure = files.failure(action, action.desired, targets[action.target], base.root if base else None)
        if failure is None:
            return action
        reason = "its files cannot be loaded"
        return replace(action, kind=ActionKind.BLOCKED, way=None, reason=reason, failure=failure)

    done = await _in_batches(fleet, checked, actions, lambda one: one.desired.lora_path if one.desired else one.name)
    return done, files.untold()


async def _in_batches(
    fleet: Fleet, call: Callable[[Item], Result], items: Iterable[Item], name: Callable[[Item], str]
) -> list[Result]:
    """Return the results of `call`. A batch is named after its first item, should the disk hang."""
    found: list[Result] = []
    left = iter(items)
    while batch := list(islice(left, _BATCH)):
        found += await fleet.disk(check, name(batch[0]), call, batch)
    return found


def check(_first: str, call: Callable[[Item], Result], batch: Sequence[Item]) -> list[Result]:
    """Return the results of `call`, on the disk's thread."""
    return [call(item) for item in batch]


@dataclass(slots=True)
class _Files:
    """The answers of one pass, so that a path which many adapters share is asked about once. Blocks on the disk."""

    artifacts: Artifacts
    _sound: set[tuple[str, int | None, str | None, bool]] = field(default_factory=set)
    _untold: dict[str, set[str]] = field(default_factory=dict)
    _digests: dict[str, str | None] = field(default_factory=dict)
    _intact: dict[str, bool | None] = field(default_factory=dict)
    _held: dict[str, bool] = field(default_factory=dict)
    _unread: set[str] = field(default_factory=set)
    _absent: dict[str, set[str]] = field(default_factory=dict)
    """Targets of this machine, by the path of an adapter that is not there."""

    def failure(
        self, action: Action, spec: AdapterDeclaration, target: TargetSpec, base_root: str | None
    ) -> Failure | None:
        """Return why `action` cannot load its files; None if nothing is known against them."""
        # An intact copy in the store stands for its content, whatever has become of the source.
        kept = action.stage and action.load_path and self.intact(action.load_path)
        place = action.load_path if kept and action.load_path else spec.lora_path
        failure = self._fault(place, target, base_root)
        digest = spec.digest if action.stage and not kept else None
        if digest and self.digest(spec.lora_path) != digest:
            # The source has changed; another entry of the store may still hold what was applied.
            failure = None if self.holds(target, digest) else failure or _nowhere(action.reason, spec)
        return failure

    def _fault(self, path: str, target: TargetSpec, base_root: str | None) -> Failure | None:
        """Check the files at `path`, once for all targets of which nothing that matters differs. A failure names its
        target, so it is found anew for each."""
        has_store = self.artifacts.staged_path(target, "") is not None
        alike = (path, target.max_lora_rank, base_root, has_store)
        if alike not in self._sound:
            content = self.artifacts.check(path, target, base_root)
            if content is not None and content.failure is not None:
                return content.failure
            self._sound.add(alike)
            if content is None:
                self._unread.add(path)
            for sentence in content.untold if content is not None else ():
                self._untold.setdefault(sentence, set()).add(path)
        # A relative path may be the name of a repository, and `~` is the home of the server's user.
        if path in self._unread and path.startswith("/") and is_here(target.base_url):
            self._absent.setdefault(path, set()).add(target.name)
        return None

    def untold(self) -> list[str]:
        """Return what could not be checked of files that may be loaded, a line for each sentence."""
        absent = [
            f"{path} does not exist on this machine, where {_some(names)} {'is' if len(names) == 1 else 'are'}, "
            "or cannot be read"
            for path, names in sorted(self._absent.items())
        ]
        return absent + [f"{_some(paths)}: {sentence}" for sentence, paths in sorted(self._untold.items())]

    def kept(self, target: TargetSpec, digest: str) -> str | None:
        """Return `digest` if the target's store holds that content."""
        path = self.artifacts.staged_path(target, digest)
        if path is None:
            return None
        return digest if self.intact(path) or self.holds(target, digest) else None

    def digest(self, path: str) -> str | None:
        if path not in self._digests:
            self._digests[path] = self.artifacts.digest(path)
        return self._digests[path]

    def intact(self, path: str) -> bool | None:
        if path not in self._intact:
            self._intact[path] = self.artifacts.intact(path)
        return self._intact[path]

    def holds(self, target: TargetSpec, digest: str) -> bool:
        path = self.artifacts.staged_path(target, digest) or ""  # names the store and the content
        if path not in self._held:
            self._held[path] = self.artifacts.holds(target, digest)
        return self._held[path]


def _some(names: Collection[str]) -> str:
    return f"{min(names)} and {len(names) - 1} more" if len(names) > 1 else min(names)


def _nowhere(reason: str, spec: AdapterDeclaration) -> Failure:
    return Failure(
        code=FailureCode.NOT_UPDATABLE,
        message=f"{spec.lora_name}: {reason}. Neither {spec.lora_path} nor the adapter store holds the content that "
        "was applied any more",
        hint="`garrison apply` rolls out what is there now; or restore the files that were there.",
    )
