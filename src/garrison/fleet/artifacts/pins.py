"""Finds the contents of the adapter stores that are in use, and by what. No I/O.

An unreachable target pins what it was last known to serve, for as long as it takes: if an adapter's files are gone, the
next request for it kills the engine.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from garrison.fleet.artifacts.entry import digest_of
from garrison.store.records import ActionRecord, Resource, StackRecord, TargetRecord

__all__ = ["Pin", "Pins", "pins"]


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """A reason to keep an entry.

    Attributes:
        why: `served` (on the last believed list), `applied` (owned by a stack), `declared` (in a stack's last manifest)
            or `running` (needed by a command that has not ended).
        unreachable_since: of the target; None if it is reachable.
    """

    target: str
    name: str
    why: str
    unreachable_since: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        since = self.unreachable_since.isoformat() if self.unreachable_since else None
        return {"target": self.target, "name": self.name, "why": self.why, "unreachable_since": since}


Pins = Mapping[str, Sequence[Pin]]
"""By digest. A server may see the store under another path than Garrison, so only the name of an entry counts."""


def pins(
    targets: Iterable[TargetRecord],
    resources: Iterable[Resource],
    stacks: Iterable[StackRecord],
    running: Iterable[ActionRecord],
) -> dict[str, tuple[Pin, ...]]:
    """Return what is known to be in use.

    Args:
        running: actions of commands that have not ended, whatever their own state.
    """
    targets = list(targets)
    away = {one.name: one.since for one in targets if one.state == "unreachable"}
    found: dict[str, dict[tuple[str, str], Pin]] = {}

    def pin(path: Any, target: str, name: str, why: str) -> None:
        digest = digest_of(PurePosixPath(path).name) if isinstance(path, str) else None
        if digest is not None:
            # Reasons are added from the strongest to the weakest, and one is enough.
            found.setdefault(digest, {}).setdefault((target, name), Pin(target, name, why, away.get(target)))

    for record in targets:
        for served in record.served:
            pin(served.get("root"), record.name, str(served.get("name")), "served")
    for resource in resources:
        pin(resource.served_path, resource.key.target, resource.key.name, "applied")
    for action in running:
        for state in (action.before, action.after):
            values = state or {}
            pin(values.get("served_path"), action.key.target, action.key.name, "running")
            pin((values.get("spec") or {}).get("digest"), action.key.target, action.key.name, "running")
    for stack in stacks:
        for spec in stack.declaration.get("adapters", ()):
            pin(spec.get("digest"), spec["target"], spec["lora_name"], "declared")
    return {digest: tuple(sorted(by_adapter.values(), key=_order)) for digest, by_adapter in found.items()}


def _order(pin: Pin) -> tuple[str, str]:
    return pin.target, pin.name
