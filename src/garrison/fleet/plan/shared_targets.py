"""Rules for targets that several stacks declare: their settings belong to all of these stacks. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

from garrison.base.errors import ConflictError
from garrison.fleet.plan.addresses import server_of
from garrison.fleet.values import events
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.target import TargetSpec
from garrison.store.records import Declared, Event, TargetRecord

__all__ = ["Dispute", "check_shared", "disputes", "orphaned_settings"]

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """A target declared with settings that differ from those on record, which other stacks rely on.

    Attributes:
        fields: names of the settings that differ, as in the manifest. Values are left out: a header may hold a secret.
        stacks: the other stacks that declare the target.
    """

    target: str
    fields: tuple[str, ...]
    stacks: tuple[str, ...]


def disputes(
    declaration: Declaration, known: Mapping[str, TargetRecord], declared: Iterable[Declared]
) -> list[Dispute]:
    """Return the targets whose settings `declaration` would change for other stacks, sorted by name.

    Moved targets are handled in `addresses`.

    Args:
        declared: what stacks declare at the targets of `declaration`.
    """
    declared_by: dict[str, list[str]] = {}
    for part in declared:
        if part.stack != declaration.stack and part.spec is not None:
            declared_by.setdefault(part.target, []).append(part.stack)
    found = []
    for name, spec in sorted(declaration.targets.items()):
        if name not in known or name not in declared_by:
            continue
        changed = changed_settings(TargetSpec.from_json(name, known[name].spec), spec)
        if changed:
            found.append(Dispute(target=name, fields=changed, stacks=tuple(sorted(declared_by[name]))))
    return found


def changed_settings(before: TargetSpec, now: TargetSpec) -> tuple[str, ...]:
    """Return the names of the settings in which two specs of one target differ.

    Another server is a move, not a changed setting. Another spelling of the same plain-HTTP address is not a change
    either; with TLS it is, since the host name decides which certificate is accepted.
    """
    names = [one.name for one in fields(TargetSpec) if one.name != "base_url"]
    changed = [name for name in names if getattr(before, name) != getattr(now, name)]
    if server_of(before.base_url) == server_of(now.base_url) and before.base_url != now.base_url:
        plain = before.base_url.startswith("http:") and now.base_url.startswith("http:")
        changed += [] if plain else ["base_url"]
    return tuple(changed)


def check_shared(
    declaration: Declaration,
    known: Mapping[str, TargetRecord],
    declared: Iterable[Declared],
    *,
    force: bool,
) -> None:
    """Check that the stack does not change the settings of a target that other stacks declare. `force` allows it.

    Raises:
        ConflictError: it would; the message names the stacks and the settings.
    """
    found = [] if force else disputes(declaration, known, declared)
    if not found:
        return
    first = found[0]
    declare = "declares" if len(first.stacks) == 1 else "declare"
    more = f", and settings of {len(found) - 1} more" if len(found) > 1 else ""
    raise ConflictError(
        f"rejected: stack {declaration.stack} would change {', '.join(first.fields)} of target {first.target}, "
        f"which {_names(first.stacks)} also {declare}{more}",
        hint=f"Declare {first.target} identically in every manifest, or use --force to change it for all of them.",
        details={
            "stack": declaration.stack,
            "targets": [
                {"target": one.target, "fields": list(one.fields), "stacks": list(one.stacks)} for one in found
            ],
        },
    )


def orphaned_settings(
    declared: Iterable[Declared], applied: Mapping[str, datetime], known: Iterable[TargetRecord], now: datetime
) -> list[tuple[TargetRecord, Event]]:
    """Return updated records of targets whose settings on record come from no stack that still declares them.

    They get the settings of the declaring stack that was applied last. The address stays, since the location of a
    server does not depend on which stack declared it.

    Args:
        declared: what stacks declare at the targets in `known`.
        applied: when each stack was applied.
    """
    owners: dict[str, list[tuple[datetime, str, Mapping[str, object]]]] = {}
    for part in declared:
        if part.spec is not None:
            owners.setdefault(part.target, []).append((applied[part.stack], part.stack, part.spec))
    found = []
    for record in known:
        claims = owners.get(record.name, ())
        current = _settings(record.spec)
        if not claims or any(_settings(spec) == current for _, _, spec in claims):
            continue
        _, heir, theirs = max(claims, key=lambda claim: claim[:2])
        spec = _settings(theirs) | {"base_url": record.spec["base_url"]}
        changed = changed_settings(
            TargetSpec.from_json(record.name, record.spec), TargetSpec.from_json(record.name, spec)
        )
        told = Event(
            at=now, kind=events.CHANGED, stack=heir, target=record.name, cause="settings",
            after={"fields": list(changed), "from": heir},
        )  # fmt: skip
        found.append((replace(record, spec=spec, declared_at=now), told))
    return found


def _settings(spec: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in spec.items() if name != "base_url"}


def _names(stacks: Sequence[str]) -> str:
    named = list(stacks[:_MOST_NAMED])
    if len(stacks) > _MOST_NAMED:
        named.append(f"{len(stacks) - _MOST_NAMED} more")
    if len(named) == 1:
        return f"stack {named[0]}"
    return f"stacks {', '.join(named[:-1])} and {named[-1]}"
