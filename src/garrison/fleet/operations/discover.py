"""Finds what targets serve without being declared: base models and unmanaged adapters, as observed now."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from garrison.base.errors import InvalidError
from garrison.base.known_names import known_names
from garrison.fleet.context import Fleet
from garrison.fleet.manifest.address import canonical_url
from garrison.fleet.observe.observer import Look, Observer
from garrison.fleet.operations.survey import look, managed_names
from garrison.fleet.values.cures import public_state
from garrison.fleet.values.observation import Served, Sighting
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.view import FleetView
from garrison.net.endpoint import Secret
from garrison.store.records import TargetRecord

__all__ = ["Discovered", "choose_targets", "discover"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """One target as observed now. `known`: it is on record, so the observation was stored."""

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
        """Return the stable shape of `--json`."""
        capabilities = self.seen.capabilities
        return {
            "name": self.target.name,
            "base_url": self.target.base_url,
            "known": self.known,
            "state": "reachable" if self.seen.known else public_state("unreachable", self.seen.cause),
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
    """Select the targets to observe. Pure.

    Args:
        wanted: names of targets, or URLs; if empty, all targets of the manifest, or all on record without a manifest.
        declared: targets of the manifest; None without a manifest.
        records: targets on record.
        api_key: key for targets given by URL.

    Raises:
        InvalidError: there is no target of that name, or the text is not the URL of a server.
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
    """Observe each of `targets` once.

    The observation of a target is stored if the target is declared exactly as it is on record; this updates the
    inventory where no agent runs.
    """
    records = {one.name: one for one in await fleet.read(fleet.store.targets, targets)}
    managed = managed_names(await fleet.read(fleet.store.resources, targets=targets))
    known = {name: spec for name, spec in targets.items() if name in records and _same(spec, records[name])}
    # Anything else is only shown: another address or key may reach another server than the one on record.
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
    """Return whether `spec` equals the settings on record."""
    return TargetSpec.from_json(record.name, record.spec) == spec


def _by_url(text: str, known: Mapping[str, TargetSpec], api_key: Secret | None) -> TargetSpec:
    try:
        url = canonical_url(text)
    except ValueError as error:
        raise InvalidError(f"--target: {error}", hint="Example: --target http://10.0.0.2:8000.") from None
    found = next((spec for spec in known.values() if spec.base_url == url), None)
    return found or TargetSpec(name=url, base_url=url, api_key=api_key)


def _no_target(name: str, known: Mapping[str, TargetSpec]) -> InvalidError:
    there = known_names(name, sorted(known), "Known targets") if known else "No target is on record yet."
    hint = f"{there} For any other server, use --target http://HOST:PORT."
    return InvalidError(f"unknown target {name!r}", hint=hint)
