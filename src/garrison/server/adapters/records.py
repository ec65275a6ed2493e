"""What decides where adapters are loaded, kept up to date: the record, what the agent saw, and which engines run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from garrison.fleet.context import Fleet
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration
from garrison.fleet.values.demand import Place
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.target import TargetSpec
from garrison.server.adapters.places import AdapterPlace, Known, Seen, adapter_places
from garrison.store.records import Resource

__all__ = ["AdapterRecords", "Engines"]

Engines = Callable[[str], datetime | None]
"""Returns since when the engine of an instance of this machine runs; None if it does not."""


class AdapterRecords:
    """Belongs to one event loop.

    Args:
        here: names of this node, None among them.
        engines: see `Engines`.

    Attributes:
        changed: is called when adapters may be loaded elsewhere than before.
        slots: how many adapters a target is to hold, where it says so.
    """

    def __init__(self, fleet: Fleet, here: Sequence[str | None], engines: Engines = lambda _name: None) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.slots: Mapping[str, int] = {}
        self._fleet = fleet
        self._here = here
        self._engines = engines
        self._known = Known()
        self._revision = -1
        self._instances: frozenset[str] = frozenset()
        self._places: dict[Place, AdapterPlace] | None = None
        self._names: dict[Place, AdapterDeclaration] = {}
        self._nodes: dict[str, str] = {}
        self._at: dict[str, set[Place]] = {}

    async def read(self, declarations: Sequence[Declaration], targets: Iterable[TargetSpec]) -> None:
        """Read what has changed on record.

        Raises:
            GarrisonError: the store cannot be read.
        """
        store, read = self._fleet.store, self._fleet.read
        changes = await read(store.changes, self._revision)
        resources: dict[str, list[Resource]] = {name: [] for name in changes.targets}
        for one in await read(store.resources, targets=changes.targets) if changes.targets else ():
            resources.setdefault(one.key.target, []).append(one)
        kept = {name: some for name, some in self._known.resources.items() if name not in resources}
        gone = {**self._known.gone, **dict.fromkeys(self._gone(resources), self._fleet.clock.now())}
        self._revision = changes.revision
        specs = list(targets)
        self.slots = {one.name: one.adapter_slots for one in specs if one.adapter_slots is not None}
        nodes = {one.name: one.instance.node for one in specs if one.instance is not None}
        self._instances = frozenset(name for name, node in nodes.items() if node in self._here)
        self._nodes = {name: node for name, node in nodes.items() if node not in self._here and node is not None}
        adapters = [one for stack in declarations for one in stack.adapters]
        self._names = {(spec.target, spec.served_name): spec for spec in adapters}
        self._at = {}
        for spec in adapters:
            self._at.setdefault(spec.target, set()).add((spec.target, spec.lora_name))
        found = kept | {name: some for name, some in resources.items() if some}
        self._know(declarations=tuple(declarations), resources=found, gone=gone)

    def saw(self, sighting: Sighting) -> None:
        """Take what the agent saw of a target."""
        name, known = sighting.target, self._known
        if not sighting.known:
            if known.away.get(name) != sighting.detail:
                self._know(away={**known.away, name: sighting.detail})
                self.changed()
            return
        away = {one: why for one, why in known.away.items() if one != name}
        served = {one.name: one.root for one in sighting.adapters.values()}
        gone = {place: at for place, at in known.gone.items() if place[0] != name or at >= sighting.at}
        self._know(away=away, seen={**known.seen, name: Seen(sighting.at, served)}, gone=gone)
        self.changed()

    def keep_away(self, leaving: Iterable[Place]) -> None:
        """Take which adapters no request is sent to."""
        self._know(leaving=frozenset(leaving))

    def known(self) -> Known:
        """Return all of it, as of now."""
        since = {name: self._engines(name) for name in self._instances}
        if since != self._known.since:
            self._know(since=since)
        return self._known

    def places(self) -> Mapping[Place, AdapterPlace]:
        """Return each declared adapter, by target and the name that clients use."""
        known = self.known()
        if self._places is None:
            self._places = adapter_places(known)
        return self._places

    def declared(self, target: str, model: str) -> AdapterDeclaration | None:
        """Return the adapter whose declared version is called `model` at a target."""
        return self._names.get((target, model))

    def at(self, target: str) -> Sequence[AdapterPlace]:
        """Return the declared adapters of one target."""
        places = self.places()
        return [places[place] for place in self._at.get(target, ())]

    def is_instance(self, target: str) -> bool:
        """Whether a target is an instance of this machine."""
        return target in self._instances

    def node_of(self, target: str) -> str | None:
        """Return the other node that runs an instance; None for any other target."""
        return self._nodes.get(target)

    def upstream(self, target: str, model: str) -> tuple[str, str]:
        """Return what workers call a target, and the name that they ask it for."""
        if (node := self._nodes.get(target)) is not None:
            return f"node:{node}", f"{target}/{model}"
        return f"{'instance' if target in self._instances else 'target'}:{target}", model

    def place_of(self, id: str, model: str) -> Place:
        """Return the target in a manifest, and the name there, of what workers ask for."""
        kind, _, name = id.partition(":")
        if kind == "node":
            name, _, model = model.partition("/")
        return name, model

    def _gone(self, fresh: Mapping[str, Iterable[Resource]]) -> set[Place]:
        """Return what is not on record any more, of targets that were read."""
        before = {(name, one.key.name) for name in fresh for one in self._known.resources.get(name, ())}
        return before - {(name, one.key.name) for name, some in fresh.items() for one in some}

    def _know(self, **changes: object) -> None:
        self._known = replace(self._known, **changes)  # type: ignore[arg-type]  # by name
        self._places = None
