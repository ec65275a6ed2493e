"""Targets, files and a store in memory, and actions as a plan makes them: what the tests of carrying out share."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from garrison.fleet.context import Fleet
from garrison.fleet.execute.commands import action_records
from garrison.fleet.execute.executor import ExecuteOptions, execute
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration
from garrison.fleet.values.observation import Served, Sighting
from garrison.fleet.values.plan import Action, ActionKind, Way
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.view import Outcome
from garrison.store.records import ActionRecord, CommandRecord, Key, Operation, Resource
from garrison.testing.artifacts import MemoryArtifacts
from garrison.testing.clock import FakeClock
from garrison.testing.store import MemoryStore
from garrison.testing.targets import MemoryTarget, MemoryTargets
from garrison.testing.views import RecordingFleetView

BASE = "acme/tiny"
COMMAND = "command-1"
STACK = "lab"
OLD, NEW = "/models/old", "/models/new"


def spec(name: str = "sql", path: str = NEW, target: str = "edge", **changes: Any) -> AdapterDeclaration:
    return AdapterDeclaration(**({"target": target, "label": name, "lora_name": name, "lora_path": path} | changes))


def applied(name: str = "sql", path: str = OLD, target: str = "edge", **changes: Any) -> Resource:
    values: dict[str, Any] = {
        "key": Key(target, ADAPTER_TYPE, name),
        "stack": STACK,
        "label": name,
        "operation": Operation.CREATED,
        "spec": spec(name, path, target).to_json(),
        "served_path": path,
        "parent": BASE,
        "at": FakeClock().now(),
    }
    return Resource(**(values | changes))


def create(one: AdapterDeclaration | None = None, **changes: Any) -> Action:
    one = one or spec()
    values: dict[str, Any] = {"kind": ActionKind.CREATE, "way": Way.LOAD, "load_path": one.lora_path, "desired": one}
    named: dict[str, Any] = {
        "target": one.target,
        "name": one.lora_name,
        "label": one.label,
        "reason": "not served yet",
    }
    return Action(**(values | named | changes))


def update(one: AdapterDeclaration | None = None, old: str = OLD, **changes: Any) -> Action:
    one = one or spec()
    recorded = applied(one.lora_name, old, one.target)
    served = Served(one.lora_name, old, BASE)
    values = {"kind": ActionKind.UPDATE, "way": Way.SWAP, "recorded": recorded, "observed": served}
    return create(one, **(values | changes))


def delete(name: str = "sql", path: str = OLD, target: str = "edge", **changes: Any) -> Action:
    values: dict[str, Any] = {
        "recorded": applied(name, path, target),
        "observed": Served(name, path, BASE),
        "desired": None,
        "load_path": None,
        "reason": "no longer declared",
    }
    return create(spec(name, path, target), **({"kind": ActionKind.DELETE, "way": Way.UNLOAD} | values | changes))


def rename(old: str = "sql", new: str = "sql2", **changes: Any) -> Action:
    values: dict[str, Any] = {"replaced": applied(old), "observed": Served(old, OLD, BASE)}
    values |= {"kind": ActionKind.REPLACE, "way": Way.LOAD_THEN_UNLOAD}
    return create(spec(new), **(values | changes))


@dataclass
class Bench:
    """`await bench.run(actions)`. Waits between attempts take no time; they move the clock and are kept in `waits`."""

    targets: MemoryTargets = field(default_factory=lambda: MemoryTargets({"edge": MemoryTarget(base=BASE)}))
    artifacts: MemoryArtifacts = field(default_factory=MemoryArtifacts)
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: FakeClock = field(default_factory=FakeClock)
    view: RecordingFleetView = field(default_factory=RecordingFleetView)
    waits: list[float] = field(default_factory=list)
    specs: dict[str, TargetSpec] = field(default_factory=dict)
    dialer: Any = None

    def __post_init__(self) -> None:
        self.fleet = Fleet(
            store=self.store,
            dialer=self.dialer or self.targets,
            artifacts=self.artifacts,
            clock=self.clock,
            draws=random.Random(1),
        )

    @property
    def edge(self) -> MemoryTarget:
        return self.targets["edge"]

    def serve(self, **adapters: str) -> None:
        """Adapters that were applied before: served, and on record."""
        self.edge.served |= adapters
        self.store.put([applied(name, path) for name, path in adapters.items()])

    async def run(self, *actions: Action, base: str = BASE, **options: Any) -> list[Outcome]:
        names = {action.target for action in actions}
        specs = {name: self.specs.get(name) or TargetSpec(name=name, base_url=f"http://{name}") for name in names}
        command = CommandRecord(id=COMMAND, kind="apply", stack=STACK, started_at=self.clock.now(), by="test")
        self.store.begin(command, action_records(COMMAND, actions))
        seen = {name: self._seen(name, base) for name in names}
        return await execute(
            self.fleet,
            actions,
            command=COMMAND,
            stack=STACK,
            targets=specs,
            sightings=seen,
            view=self.view,
            options=replace(ExecuteOptions(sleep=self._sleep), **options),
        )

    async def one(self, action: Action, **options: Any) -> Outcome:
        (outcome,) = await self.run(action, **options)
        return outcome

    def record(self, seq: int = 0) -> ActionRecord:
        return self.store.actions(COMMAND)[seq]

    def owned(self) -> dict[str, Resource]:
        return {one.key.name: one for one in self.store.resources(stack=STACK)}

    def asked(self, target: str = "edge") -> Sequence[str]:
        """What changed something on the target, or tried to, in short."""
        short = {"/v1/load_lora_adapter": "load", "/v1/unload_lora_adapter": "unload", "/v1/models": "list"}
        short["/v1/completions"] = "complete"
        return [short[one.path] for one in self.targets.requests if one.target == target]

    def close(self) -> None:
        self.fleet.close()

    def _seen(self, name: str, base: str) -> Sighting:
        return Sighting(target=name, at=self.clock.now(), served={base: Served(base, base, None)}, base=base)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(seconds)
