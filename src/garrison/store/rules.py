"""Decisions that every implementation of the store makes in the same way. Pure."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from garrison.base.errors import ConflictError
from garrison.store.records import Event, Lease, Observation, TargetRecord

__all__ = [
    "can_take",
    "head_of",
    "is_elsewhere",
    "narrowed",
    "observation_of",
    "parts",
    "refuse_changed",
    "seen_otherwise",
    "without_news_of",
]

_BY_TARGET = ("targets", "adapters", "models")


def can_take(held: Lease | None, wanted: Lease, now: datetime, instead_of: str | None) -> bool:
    """Return whether `wanted` may replace `held`. A repeated request with the same token succeeds."""
    return held is None or held.expires_at <= now or held.token in (wanted.token, instead_of)


def seen_otherwise(before: TargetRecord, after: TargetRecord) -> bool:
    """Return whether `after` differs from `before` in what was seen, which makes it a new observation."""
    return (before.state, before.cause, before.base, before.served) != (
        after.state,
        after.cause,
        after.base,
        after.served,
    )


def is_elsewhere(known: TargetRecord, seen: TargetRecord) -> bool:
    """Return whether `seen` was observed at another address than the one on record: the target has moved since."""
    return known.spec.get("base_url") != seen.spec.get("base_url")


def without_news_of(targets: Collection[str], events: Iterable[Event]) -> list[Event]:
    """Return `events` without those that are about one of `targets` itself, not about an adapter on it."""
    return [one for one in events if one.name is not None or one.target not in targets]


def observation_of(target: TargetRecord) -> Observation:
    """Return the observation that a target's record describes."""
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


def parts(declaration: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Split a declaration by target into {spec, adapters, models}.

    `spec` is None if adapters are declared for a target that is not declared itself.
    """
    specs = declaration.get("targets", {})
    specs = specs if isinstance(specs, Mapping) else dict.fromkeys(specs)
    found: dict[str, dict[str, Any]] = {
        name: {"spec": spec, "adapters": [], "models": []} for name, spec in specs.items()
    }
    for kind in ("adapters", "models"):
        for one in declaration.get(kind, ()):
            if (part := found.get(one["target"])) is None:
                part = found[one["target"]] = {"spec": None, "adapters": [], "models": []}
            part[kind].append(one)
    return found


def head_of(declaration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a declaration that concerns no single target: its policy and hooks."""
    return {key: value for key, value in declaration.items() if key not in _BY_TARGET}


def narrowed(head: Mapping[str, Any], some: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a declaration made of its head and `some` of its parts."""
    return {
        **head,
        "targets": {name: part["spec"] for name, part in some.items() if part["spec"] is not None},
        "adapters": [one for part in some.values() for one in part["adapters"]],
        "models": [one for part in some.values() for one in part["models"]],
    }


def refuse_changed(
    declared: Iterable[TargetRecord],
    known: Mapping[str, Mapping[str, Any]],
    seen: Mapping[str, Mapping[str, Any]] | None,
) -> None:
    """Refuse to overwrite what another command has declared since the caller read the record.

    Args:
        known: the specs on record now, by target.
        seen: the specs on record when the caller read them; None skips the check.

    Raises:
        ConflictError: the spec of one of `declared` on record is neither the one in `seen` nor the new one.
    """
    if seen is None:
        return
    for target in declared:
        spec = known.get(target.name)
        if spec is not None and spec not in (seen.get(target.name), target.spec):
            raise ConflictError(
                f"rejected: another command has changed target {target.name} in the meantime",
                hint="Nothing was changed; plan again.",
                details={"target": target.name},
            )
