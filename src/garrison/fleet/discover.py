"""What targets serve that nobody declared: base models and unmanaged adapters, seen now."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from garrison.base.errors import InvalidError
from garrison.fleet.context import Fleet
from garrison.fleet.manifest.address import canonical_url
from garrison.fleet.observation import Served, Sighting
from garrison.fleet.observe import Look, Observer
from garrison.fleet.survey import look, managed_names
from garrison.fleet.target import Secret, TargetSpec
from garrison.fleet.view import FleetView
from garrison.store.records import TargetRecord

__all__ = ["Discovered", "choose_targets", "discover"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """One target, seen now. `known`: it is on record, so what was seen is remembered."""

    target: TargetSpec
    seen: Sighting
    managed: frozenset[str]
    known: bool

    @property
    def models(self) -> list[Served]:
        return [one for one in self.seen.served.values() if one.parent is None]

    @property
    def unmanaged(self) -> list[Served]:
        return [one for name, one in sorted(self.seen.adapters.items()) if name not in self.managed]

    def to_json(self) -> dict[str, Any]:
        """The pinned shape of `--json`."""
        capabilities = self.seen.capabilities
        return {
            "name": self.target.name,
            "base_url": self.target.base_url,
            "known": self.known,
            "state": "reachable" if self.seen.known else "unreachable",
            "cause": str(self.seen.cause) if self.seen.cause else None,
            "detail": self.seen.detail or None,
            "version": capabilities.version if capabilities else None,
            "models": [{"name": one.name, "path": one.root} for one in self.models],
            "unmanaged": [{"name": one.name, "path": one.root, "base": one.parent} for one in self.unmanaged],
            "managed": len(self.seen.adapters) - len(self.unmanaged),
        }


def choose_targets(
    wanted: Sequence[str],
    declared: Mapping[str, TargetSpec] | None,
    records: Iterable[TargetRecord],
    *,
    api_key: Secret | None = None,
) -> dict[str, TargetSpec]:
    """The targets to look at. Pure.

    Args:
        wanted: names of targets, or URLs; where there are none, all of the manifest, else all on record.
        declared: targets of the manifest; None where none was given.
        api_key: for bare URLs.

    Raises:
        InvalidError: no target of that name, or no URL of a server.
    """
    recorded = {one.name: TargetSpec.from_json(one.name, one.spec) for one in records}
    pool = recorded if declared is None else dict(declared)
    if not wanted:
        return pool
    chosen: dict[str, TargetSpec] = {}
    for text in wanted:
        spec = _by_url(text, recorded | pool, api_key) if "://" in text else (pool.get(text) or recorded.get(text))
        if spec is None:
            raise _no_target(text, recorded | pool)
        chosen[spec.name] = spec
    return chosen


async def discover(fleet: Fleet, targets: Mapping[str, TargetSpec], view: FleetView) -> list[Discovered]:
    """Look at each of `targets` once. What is seen of one that is on record, as it is on record, is remembered: this is
    how the inventory is brought up to date without an agent."""
    records = {one.name: one for one in await fleet.read(fleet.store.targets, targets)}
    managed = managed_names(await fleet.read(fleet.store.resources, targets=targets))
    known = {name: spec for name, spec in targets.items() if name in records and _same(spec, records[name])}
    strange = [Look(target=spec, probe=True) for name, spec in targets.items() if name not in known]
    seen = {
        name: one.sighting for name, one in (await look(fleet, known, records, managed, view, record=known)).items()
    }
    if strange:
        seen |= await Observer(fleet.dialer, fleet.clock).observe(strange, view.observed)
    return [
        Discovered(target=spec, seen=seen[name], managed=frozenset(managed.get(name, ())), known=name in known)
        for name, spec in sorted(targets.items())
    ]


def _same(spec: TargetSpec, record: TargetRecord) -> bool:
    """Whether it is declared as it is on record."""
    return TargetSpec.from_json(record.name, record.spec) == spec


def _by_url(text: str, known: Mapping[str, TargetSpec], api_key: Secret | None) -> TargetSpec:
    try:
        url = canonical_url(text)
    except ValueError as error:
        raise InvalidError(f"--target: {error}", hint="For example --target http://10.0.0.2:8000.") from None
    found = next((spec for spec in known.values() if spec.base_url == url), None)
    return found or TargetSpec(name=url, base_url=url, api_key=api_key)


def _no_target(name: str, known: Mapping[str, TargetSpec]) -> InvalidError:
    import difflib

    close = difflib.get_close_matches(name, known, 1)
    there = f"Known: {', '.join(sorted(known)[:10])}." if known else "None is on record yet."
    hint = f"Did you mean {close[0]}?" if close else f"{there} A server that is not: --target http://HOST:PORT."
    return InvalidError(f"there is no target {name!r}", hint=hint)
