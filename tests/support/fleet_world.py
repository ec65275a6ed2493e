"""A fleet without sockets, files or a database, for tests of what runs over all of them."""

import random
from typing import Any

from garrison.fleet.agent.loop import Agent
from garrison.fleet.context import Fleet
from garrison.fleet.execute.steps import ExecuteOptions
from garrison.fleet.operations.apply import Applied, apply, destroy, preview
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration, Policy
from garrison.fleet.values.plan import Plan
from garrison.fleet.values.target import TargetSpec
from garrison.store.records import Event, Key, Resource
from garrison.testing.artifacts import MemoryArtifacts
from garrison.testing.clock import FakeClock
from garrison.testing.store import MemoryStore
from garrison.testing.targets import MemoryTarget, MemoryTargets
from garrison.testing.views import RecordingFleetView

BASE = "acme/tiny"


class World:
    """Targets `edge-1`, `edge-2`, …; one stack, `lab`."""

    def __init__(self, targets: int = 1) -> None:
        self.clock = FakeClock()
        self.targets = MemoryTargets({f"edge-{number}": MemoryTarget(base=BASE) for number in range(1, targets + 1)})
        self.store = MemoryStore()
        self.artifacts = MemoryArtifacts()
        self.view = RecordingFleetView()
        self.fleet = Fleet(
            store=self.store,
            dialer=self.targets,
            artifacts=self.artifacts,
            clock=self.clock,
            draws=random.Random(0),
        )

    @property
    def edge(self) -> MemoryTarget:
        return self.targets["edge-1"]

    def declaration(self, *adapters: AdapterDeclaration, on_drift: Any = "report", stack: str = "lab") -> Declaration:
        specs = {name: TargetSpec(name=name, base_url=f"http://{name}:8000") for name in self.targets.targets}
        return Declaration(stack=stack, targets=specs, adapters=adapters, policy=Policy(on_drift=on_drift))

    async def apply(self, declaration: Declaration, *, mode: Any = "reconcile", **options: Any) -> Applied:
        self.clock.advance(1)
        return await apply(
            self.fleet,
            declaration,
            self.view,
            mode=mode,
            options=PlanOptions(**options),
            execution=ExecuteOptions(probe=False, sleep=self.sleep),
        )

    async def destroy(self, stack: str = "lab") -> Applied:
        return await destroy(self.fleet, stack, self.view, options=PlanOptions())

    async def plan(self, declaration: Declaration, **options: Any) -> Plan:
        return await preview(self.fleet, declaration, self.view, options=PlanOptions(**options))

    async def agent_pass(self) -> Agent:
        """An agent that is started, looks once at everything, does what is due, and ends."""
        self.clock.advance(60)
        agent = Agent(self.fleet, self.view)
        await agent.startup()
        await agent.once()
        await agent.shutdown()
        return agent

    async def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def recorded(self, name: str, target: str = "edge-1") -> Resource | None:
        return next((one for one in self.store.resources() if one.key == Key(target, ADAPTER_TYPE, name)), None)

    def told(self, *kinds: str) -> list[Event]:
        """Events of these kinds, oldest first."""
        return [one for one in reversed(self.store.events(limit=1000)) if one.kind in kinds]


def adapter(name: str = "sql", target: str = "edge-1", **changes: Any) -> AdapterDeclaration:
    values: dict[str, Any] = {"target": target, "label": name, "lora_name": name, "lora_path": f"/models/{name}"}
    return AdapterDeclaration(**(values | changes))
