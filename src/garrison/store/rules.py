"""What every store decides in the same way."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from garrison.base.errors import ConflictError
from garrison.store.records import Lease, Observation, StackRecord, TargetRecord

__all__ = ["can_take", "declared_targets", "observation_of", "refuse_changed", "seen_otherwise"]


def can_take(held: Lease | None, wanted: Lease, now: datetime, instead_of: str | None) -> bool:
    """Whether `wanted` may take the place of `held`. Asking again with one's own token is harmless."""
    return held is None or held.expires_at <= now or held.token in (wanted.token, instead_of)


def seen_otherwise(before: TargetRecord, after: TargetRecord) -> bool:
    """Whether the second look saw something else, so that it is an observation of its own."""
    return (before.state, before.cause, before.base, before.served) != (
        after.state,
        after.cause,
        after.base,
        after.served,
    )


def observation_of(target: TargetRecord) -> Observation:
    """Of a target that was looked at."""
    at = target.last_checked or target.since or target.declared_at
    return Observation(
        target=target.name,
        at=at,
        state=target.state,
        cause=target.cause,
        detail=target.detail,
        base=target.base,
        served=target.served,
    )


def declared_targets(stacks: Iterable[StackRecord]) -> set[str]:
    """Names of the targets that some stack declares."""
    return {name for stack in stacks for name in stack.declaration.get("targets", ())}


def refuse_changed(
    declared: Iterable[TargetRecord],
    known: Mapping[str, TargetRecord],
    seen: Mapping[str, Mapping[str, Any]] | None,
) -> None:
    """Refuse to overwrite what another command has declared since the caller looked.

    Raises:
        ConflictError: the spec on record of one of `declared` is neither the one in `seen` nor the new one.
    """
    if seen is None:
        return
    for target in declared:
        record = known.get(target.name)
        if record is not None and record.spec not in (seen.get(target.name), target.spec):
            raise ConflictError(
                f"rejected: another command has changed target {target.name} in the meantime",
                hint="Plan again: nothing was changed.",
                details={"target": target.name},
            )
