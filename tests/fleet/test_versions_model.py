"""Random histories of adapters that are updated while requests use them, against what must hold at every unload.

Workers of a gateway send requests to the version that they were told last. The process that updates, which tells them,
is killed between any two effects; workers and targets go on. Written from the requirement:

- what workers were told is served, and so is what a request in progress uses;
- an adapter that has been served once is served from then on, as long as it is declared;
- once it is calm, one version of each is served, the declared one, and it is the one on record.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from fleet_lab import BASE, STORE, KilledError, Lab, Process, lost_answer
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from garrison.base.errors import ConflictError
from garrison.fleet.agent.loop import Agent
from garrison.fleet.operations.apply import apply
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, Policy
from garrison.fleet.values.demand import Place
from garrison.fleet.values.observation import Cause
from garrison.fleet.values.view import SilentView
from garrison.server.adapters.places import Known, adapter_places
from garrison.testing.adapter_traffic import MemoryTraffic
from garrison.testing.targets import MemoryFault, MemoryTarget, refusal

EDGES = ("t1", "t2")
NAMES = ("sql", "chat")
DIGESTS = ("a" * 64, "b" * 64, "c" * 64)
INTERVAL = 10.0
MISHAPS = {
    "load fails once": MemoryFault("/v1/load_lora_adapter", refusal(500, "InternalServerError", "no"), times=1),
    "load's answer is lost": MemoryFault("/v1/load_lora_adapter", lost_answer(Cause.RESET), after=True, times=1),
    "unload's answer is lost": MemoryFault("/v1/unload_lora_adapter", lost_answer(Cause.RESET), after=True, times=1),
    "adapter answers nothing": MemoryFault("/v1/completions", refusal(500, "InternalServerError", "no"), times=1),
}
edges, names = st.sampled_from(EDGES), st.sampled_from(NAMES)
fuses = st.none() | st.tuples(st.integers(0, 30), st.booleans())


@dataclass(slots=True)
class WatchedTarget(MemoryTarget):
    """Says before it unloads something."""

    before_unload: Callable[[str], None] = field(default=lambda _name: None)

    def _unload(self, body: Any) -> Any:
        self.before_unload(body["lora_name"])
        return MemoryTarget._unload(self, body)


class Updates(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.lab = Lab(EDGES)
        for edge in EDGES:
            target = WatchedTarget(base=BASE)
            target.before_unload = lambda name, edge=edge: self._may_go((edge, name))  # type: ignore[misc]
            self.lab.targets.targets[edge] = target
        self.lab.artifacts.digests |= {f"/m/{name}": DIGESTS[0] for name in NAMES}
        self.running: Counter[Place] = Counter()
        self.requests: list[Place] = []
        self.told: dict[Place, str] = {}
        """What workers send requests to, by target and public name."""
        self.traffics: list[tuple[Process, MemoryTraffic]] = []
        self.agent: Agent | None = None
        self.host: Process | None = None

    # --- what people do

    @rule(name=names, digest=st.sampled_from(DIGESTS))
    def content_changes(self, name: str, digest: str) -> None:
        self.lab.artifacts.digests[f"/m/{name}"] = digest

    @rule(some=st.sampled_from((("sql",), NAMES, NAMES)), patch=st.booleans(), killed=fuses)
    def apply(self, some: tuple[str, ...], patch: bool, killed: Any) -> None:
        process = self._process("lab")
        if killed is not None:
            process.light(killed[0], after=killed[1])
        mode: Any = "patch" if patch else "reconcile"
        options = PlanOptions()
        task = process.start(apply(process.fleet, self._declaration(some), SilentView(), mode=mode, options=options))
        try:
            self.lab.run(_joined(task))
        except (KilledError, ConflictError):  # the agent may hold the stack
            pass
        finally:
            self.lab.turn(process.bury())

    @rule(edge=edges, name=names)
    def request_begins(self, edge: str, name: str) -> None:
        if model := self.told.get((edge, name)):
            place = (edge, model)
            assert model in self.lab.targets[edge].served, f"{place} was told to workers, and is not served"
            self.running[place] += 1
            self.requests.append(place)

    @precondition(lambda self: self.requests)
    @rule(at=st.integers(0, 10))
    def request_ends(self, at: int) -> None:
        self.running[self.requests.pop(at % len(self.requests))] -= 1

    @rule(edge=edges, kind=st.sampled_from(sorted(MISHAPS)))
    def mishap(self, edge: str, kind: str) -> None:
        one = MISHAPS[kind]
        self.lab.targets[edge].faults.append(MemoryFault(one.path, one.result, after=one.after, times=one.times))

    @rule(seconds=st.sampled_from((0.2, 1.5, INTERVAL, 6 * INTERVAL)))
    def time_passes(self, seconds: float) -> None:
        self._pass(seconds)

    # --- the agent

    @precondition(lambda self: self.agent is None)
    @rule()
    def agent_starts(self) -> None:
        self.host = self._process()
        self.agent = Agent(self.host.fleet, SilentView())
        host, agent = self.host, self.agent

        async def life() -> None:
            await agent.startup()
            await agent.main_loop()

        self.life = host.start(life())
        self._pass(0.3)

    @precondition(lambda self: self.agent is not None)
    @rule(fuse=st.integers(0, 12), after=st.booleans(), seconds=st.sampled_from((0.2, INTERVAL)))
    def agent_is_killed(self, fuse: int, after: bool, seconds: float) -> None:
        assert self.host is not None
        self.host.light(fuse, after=after)
        self.lab.run(asyncio.sleep(seconds))
        self.lab.run(self.host.bury())
        self.agent = self.host = None

    # --- once it is calm

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self._calm()
        finally:
            try:
                if self.host is not None:
                    self.lab.turn(self.host.bury())
            finally:
                self.lab.close()

    def _calm(self) -> None:
        for edge in EDGES:
            self.lab.targets[edge].faults.clear()
        self.running.clear()
        self.requests.clear()
        stack = self.lab.store.stack("lab")
        for body in stack.declaration["adapters"] if stack is not None else ():
            # What was applied may be nowhere any more, if the files changed before they were copied.
            self.lab.artifacts.digests[body["lora_path"]] = body["digest"]
        if self.agent is not None:  # it may leave something alone that failed
            self.agent_is_killed(0, False, 0.2)
        self.agent_starts()
        self._pass(30 * INTERVAL)
        stack = self.lab.store.stack("lab")
        wanted: dict[str, dict[str, str]] = {edge: {} for edge in EDGES}
        for body in stack.declaration["adapters"] if stack is not None else ():
            one = AdapterDeclaration(**body)
            wanted[one.target][one.served_name] = f"{STORE}/{one.digest}"
        owned: dict[str, dict[str, str]] = {edge: {} for edge in EDGES}
        for resource in self.lab.store.resources():
            owned[resource.key.target][resource.key.name] = resource.served_path
        served = {edge: dict(self.lab.targets[edge].served) for edge in EDGES}
        assert served == wanted
        assert owned == wanted

    # --- parts

    def _process(self, stack: str | None = None) -> Process:
        traffic = MemoryTraffic(self.running)
        process = self.lab.process(stack, traffic=traffic)
        traffic.tell = self._tell
        self.traffics = [(one, its) for one, its in self.traffics if one.alive] + [(process, traffic)]
        self._tell()
        return process

    def _places(self, away: set[Place]) -> dict[Place, str]:
        stack = self.lab.store.stack("lab")
        resources: dict[str, list[Any]] = {}
        for one in self.lab.store.resources():
            resources.setdefault(one.key.target, []).append(one)
        declarations = () if stack is None else (Declaration.from_json(stack.declaration),)
        found = adapter_places(Known(declarations=declarations, resources=resources, leaving=away))
        return {place: one.model for place, one in found.items()}

    def _tell(self) -> None:
        """Whoever lives tells the workers; nobody does if the last one has just been killed."""
        away = {place for process, traffic in self.traffics if process.alive for place in traffic.away}
        if not any(process.alive for process, _ in self.traffics):
            return
        before, self.told = self.told, self._places(away)
        for place, model in before.items():
            if model and place in self.told:
                self._must(bool(self.told[place]), f"{place} was served, and is not any more")
        for (edge, _), model in self.told.items():
            there = not model or model in self.lab.targets[edge].served
            self._must(there, f"workers are told to ask {edge} for {model}, which it does not serve")

    def _may_go(self, place: Place) -> None:
        edge, name = place
        told = [public for (where, public), model in self.told.items() if where == edge and model == name]
        self._must(not told, f"{place} is unloaded, and workers send requests to it")
        declared = {public for where, public in self.told if where == edge}
        public = name.partition("@")[0]
        self._must(not self.running[place] or public not in declared, f"{place} is unloaded, and in use")

    def _must(self, condition: bool, otherwise: str) -> None:
        """Whoever catches the error, `Lab.check` knows it."""
        if not condition:
            self.lab.odd.append(otherwise)
            raise AssertionError(otherwise)

    def _declaration(self, some: tuple[str, ...]) -> Declaration:
        adapters = tuple(
            AdapterDeclaration(target=edge, label=name, lora_name=name, lora_path=f"/m/{name}", versioned=True)
            for edge in EDGES
            for name in some
        )
        targets = {edge: self.lab.spec(edge) for edge in EDGES}
        policy = Policy(on_drift="restore", interval=INTERVAL)
        return Declaration(stack="lab", targets=targets, adapters=adapters, policy=policy)

    def _pass(self, seconds: float) -> None:
        """A control process that lives follows the record."""
        for _ in range(4):
            self.lab.run(asyncio.sleep(seconds / 4))
            self._tell()
        if self.agent is not None:
            assert not self.life.done(), f"the agent ended: {self.life}"


async def _joined(task: "asyncio.Task[Any]") -> Any:
    await asyncio.wait([task])
    return task.result()


TestUpdates = Updates.TestCase
TestUpdates.settings = settings(
    max_examples=int(os.environ.get("FLEET_MODEL_EXAMPLES", "200")),
    stateful_step_count=25,
    derandomize="FLEET_MODEL_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestUpdates.pytestmark = [pytest.mark.timeout(600)]  # type: ignore[attr-defined]
