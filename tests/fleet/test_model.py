"""Random histories of a fleet against a model of what was asked for, and what must hold once things are calm.

The model is who declared what, as of the last apply, and who loaded what. It is written from the requirement; the
servers, the store and what may never happen to them are in `fleet_lab`. Time is the loop's own, so an agent runs in the
background all the while, and a kill strikes between any two effects: every write of the store and every request.
"""

import asyncio
import os
import sys
from typing import Any

import pytest
from fleet_lab import OTHERS, STORE, KilledError, Lab, Place, Process, lost_answer
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from garrison.base.errors import ConflictError
from garrison.base.exit_codes import ExitCode
from garrison.fleet.agent.loop import Agent
from garrison.fleet.operations.apply import Applied, apply, destroy
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values import events
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, Policy
from garrison.fleet.values.observation import Cause
from garrison.fleet.values.view import SilentView
from garrison.net.errors import TransportCause
from garrison.net.transport import Answer, TransportError
from garrison.store.records import CommandState, Event, StackRecord
from garrison.testing.targets import MemoryFault, json_answer, refusal

INTERVAL = 10.0
STACKS = ("red", "blue")
EDGES = ("t1", "t2", "t3")
WITHOUT_STORE = ("t2",)
READABLE = ("/m/a", "/m/b")
ELSEWHERE = "/m/c"
"""A path that only the servers can read."""

HTML = Answer(200, b"<html>sign in</html>", {"content-type": "text/html"})
FOREIGN = json_answer({"object": "list", "data": [{"id": "x/y", "object": "model", "owned_by": "vllm", "root": "x/y"}]})
OUTAGES: dict[str, TransportError | Answer] = {
    "refused": TransportError(TransportCause.REFUSED, "connection refused"),
    "hangs": TransportError(TransportCause.TIMEOUT, "no answer", sent=True),
    "html": HTML,
    "500": refusal(500, "InternalServerError", "no"),
    "404": json_answer({"detail": "Not Found"}, 404),
    "empty list": json_answer({"object": "list", "data": []}),
    "foreign list": FOREIGN,
}
MISHAPS: dict[str, MemoryFault] = {
    "load fails once": MemoryFault("/v1/load_lora_adapter", OUTAGES["500"], times=1),
    "load's answer is lost": MemoryFault("/v1/load_lora_adapter", lost_answer(Cause.RESET), after=True, times=1),
    "unload's answer is lost": MemoryFault("/v1/unload_lora_adapter", lost_answer(Cause.RESET), after=True, times=1),
    "away after a load": MemoryFault("/v1/models", OUTAGES["refused"], skip=1, times=12),
    "away after an unload": MemoryFault("/v1/load_lora_adapter", OUTAGES["refused"], times=12),
    "adapter answers nothing": MemoryFault("/v1/completions", OUTAGES["500"], skip=1, times=1),
}

edges = st.sampled_from(EDGES)
names = st.sampled_from(("sql", "chat", "code"))
stacks = st.sampled_from(STACKS)
paths = st.sampled_from((*READABLE, ELSEWHERE))
manifests = st.lists(
    st.tuples(edges, st.sampled_from(("x", "y")), names, paths),
    max_size=5,
    unique_by=(lambda one: (one[0], one[1]), lambda one: (one[0], one[2])),
)
"""(target, label, name, path)"""
fuses = st.none() | st.tuples(st.integers(0, 30), st.booleans())


class Fleets(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.lab = Lab(EDGES, WITHOUT_STORE)
        self.lab.artifacts.digests |= {path: f"digest-{path[-1]}0" for path in READABLE}
        self.manifests: dict[str, Declaration] = {}
        """Each stack as it was last asked for, and the store says it was taken."""
        self.policies: dict[str, str] = {}
        self.edits = 0
        self.agent: Agent | None = None
        self.host: Process | None = None

    @initialize(policies=st.tuples(*[st.sampled_from(("report", "restore"))] * len(STACKS)))
    def begin(self, policies: tuple[str, str]) -> None:
        self.policies = dict(zip(STACKS, policies, strict=True))

    # --- what people do

    @rule(
        stack=stacks,
        manifest=manifests,
        patch=st.booleans(),
        force=st.booleans(),
        adopt=st.booleans(),
        killed=fuses,
    )
    def apply(self, stack: str, manifest: Any, patch: bool, force: bool, adopt: bool, killed: Any) -> None:
        self._apply(stack, self._declaration(stack, manifest), patch, force, adopt, killed)

    @rule(stack=stacks, force=st.booleans(), killed=fuses)
    def apply_again(self, stack: str, force: bool, killed: Any) -> None:
        if stack in self.manifests:
            self._apply(stack, self.manifests[stack], False, force, False, killed)

    @rule(stack=stacks, killed=fuses)
    def destroy(self, stack: str, killed: Any) -> None:
        process = self.lab.process(stack)
        work = destroy(process.fleet, stack, SilentView(), options=PlanOptions())
        done = self._command(process, work, killed)
        left = self.lab.store.stack(stack)
        if left is None or left.ending:
            self.manifests.pop(stack, None)
        if done is not None and done.exit_code is ExitCode.OK:
            assert self.lab.store.resources(stack=stack) == []
            assert self.lab.store.stack(stack) is None

    @rule(edge=edges, name=names, path=st.sampled_from(("/m/a", "/theirs")))
    def somebody_loads(self, edge: str, name: str, path: str) -> None:
        self.lab.tamper(edge, name, path)

    @rule(edge=edges, name=names)
    def somebody_unloads(self, edge: str, name: str) -> None:
        self.lab.tamper(edge, name, None)

    @rule(edge=edges)
    def forget(self, edge: str) -> None:
        event = Event(at=self.lab.clock.now(), kind=events.FORGOTTEN, target=edge)
        for place in self.lab.loaded_by:
            if place[0] == edge:
                self.lab.loaded_by[place] = OTHERS
        self.lab.store.forget(edge, self.lab.clock.now(), event)

    @rule(path=st.sampled_from(READABLE))
    def content_changes(self, path: str) -> None:
        self.edits += 1
        self.lab.artifacts.digests[path] = f"digest-{path[-1]}{self.edits}"

    # --- what happens

    @rule(edge=edges)
    def restart(self, edge: str) -> None:
        self.lab.restart(edge)

    @rule(edge=edges, kind=st.sampled_from(sorted(OUTAGES)))
    def outage(self, edge: str, kind: str) -> None:
        self._heal(edge)
        what = OUTAGES[kind]
        if isinstance(what, TransportError):
            self.lab.targets[edge].down = what
        else:
            self.lab.targets[edge].faults.append(MemoryFault("/*", what))

    @rule(edge=edges)
    def outage_ends(self, edge: str) -> None:
        self._heal(edge)

    @rule(edge=edges, kind=st.sampled_from(sorted(MISHAPS)))
    def mishap(self, edge: str, kind: str) -> None:
        one = MISHAPS[kind]
        again = MemoryFault(one.path, one.result, after=one.after, skip=one.skip, times=one.times)
        self.lab.targets[edge].faults.append(again)

    @rule(edge=edges, path=st.sampled_from((*READABLE, ELSEWHERE)))
    def path_goes_bad(self, edge: str, path: str) -> None:
        """Loads from it, and from what is staged of it, are refused for good."""
        answer = refusal(500, "InternalServerError", "LoRA rank 64 is greater than max_lora_rank 16")
        digest = self.lab.artifacts.digests.get(path)
        self.lab.targets[edge].broken |= {path: answer, f"{STORE}/{digest}": answer}

    @rule(seconds=st.sampled_from((0.2, 1.5, INTERVAL, 6 * INTERVAL)))
    def time_passes(self, seconds: float) -> None:
        self._pass(seconds)

    # --- the agent

    @precondition(lambda self: self.agent is None)
    @rule()
    def agent_starts(self) -> None:
        self.host = self.lab.process()
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
        """Within that time, or at its end."""
        assert self.host is not None
        self.host.light(fuse, after=after)
        self.lab.run(asyncio.sleep(seconds))
        self.lab.run(self.host.bury())
        self.agent = self.host = None

    @precondition(lambda self: self.agent is not None)
    @rule()
    def agent_stops(self) -> None:
        agent, host = self.agent, self.host
        assert agent is not None
        assert host is not None

        async def stop() -> None:
            agent.request_stop()
            await agent.shutdown(5.0)
            await host.bury()

        self.lab.run(stop())
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
        doubtful = any(server.broken for server in self.lab.targets.targets.values()) or self.edits
        for target in EDGES:
            self._heal(target)
            self.lab.targets[target].broken.clear()
        if self.agent is not None and doubtful:  # it remembers what failed for good
            self.agent_stops()
        if self.agent is None:
            self.agent_starts()
        self._pass(5 * INTERVAL)
        self._nothing_is_owed()
        self.agent_stops()  # so that nobody else holds a stack
        taken = {stack for stack in STACKS if stack in self.manifests and self._taken(stack)}
        self._everything_is_as_declared(taken)
        for stack in STACKS:
            self.destroy(stack, None)
        assert self.lab.store.stacks() == []
        assert self.lab.store.resources() == []
        assert not self._orphans()

    def _nothing_is_owed(self) -> None:
        """By the agent alone."""
        running = [one for one in self.lab.store.commands(limit=1000) if one.state is CommandState.RUNNING]
        assert not running, "commands that never end"
        assert not [one for one in self.lab.store.stacks() if one.ending], "a destroyed stack stays"
        assert {one.name for one in self.lab.store.stacks()} == set(self.manifests)
        assert not self._orphans()
        owners = self.lab.owners()
        for stack in self.lab.store.stacks():
            for one in stack.declaration["adapters"]:
                place = (one["target"], one["lora_name"])
                if self._excused(stack, one, owners):
                    continue
                served = self.lab.served(place)
                assert served in (one["lora_path"], f"{STORE}/{one['digest']}"), f"{stack.name} {place}: {served}"
            wanted = {(one["target"], one["lora_name"]) for one in stack.declaration["adapters"]}
            extra = [place for place, owner in owners.items() if owner.stack == stack.name and place not in wanted]
            assert not extra, f"{stack.name} still has {extra}"

    def _excused(self, stack: StackRecord, one: Any, owners: Any) -> bool:
        """What the agent cannot or may not bring about."""
        place = (one["target"], one["lora_name"])
        owner = owners.get(place)
        if place[0] not in {target.name for target in self.lab.store.targets()}:
            return True  # forgotten
        if owner is not None and owner.stack != stack.name:
            return True
        others = self.lab.loaded_by.get(place) == OTHERS
        if others and (owner is None or self.policies[stack.name] == "report"):
            return True
        if self.policies[stack.name] == "report" and place in self.lab.neglected:
            return True
        # New content at a path that the server may have cached is refused where it cannot be staged.
        if self.edits and place[0] in WITHOUT_STORE and one["lora_path"] in READABLE and self.lab.served(place) is None:
            return True
        # New content is rolled out by apply only; the content that was applied may be nowhere any more.
        kept = f"{STORE}/{one['digest']}" in self.lab.artifacts.staged and place[0] not in WITHOUT_STORE
        return not kept and self.lab.artifacts.digests.get(one["lora_path"]) != one["digest"]

    def _orphans(self) -> list[str]:
        """Served, loaded by Garrison, and owned by nobody."""
        owners = self.lab.owners()
        return [
            f"{target}: {name} from {path}"
            for target, server in self.lab.targets.targets.items()
            for name, path in server.served.items()
            if self.lab.loaded_by.get((target, name)) != OTHERS
            and ((target, name) not in owners or owners[target, name].served_path != path)
        ]

    def _taken(self, stack: str) -> bool:
        """Apply it again, whatever others did. It is rejected only where it claims what another stack has."""
        manifest = self.manifests[stack]
        owners = {owner.stack for place, owner in self.lab.owners().items() if place in _places(manifest)}
        self._apply(stack, manifest, False, True, True, None)
        return owners <= {stack}

    def _everything_is_as_declared(self, taken: set[str]) -> None:
        owners = self.lab.owners()
        for stack in taken:
            for spec in self.manifests[stack].adapters:
                assert owners[spec.target, spec.lora_name].stack == stack
                # New content at a path that the server may have cached is refused where it cannot be staged.
                refused = spec.target in WITHOUT_STORE and spec.lora_path in READABLE and self.edits
                gone = self.lab.served((spec.target, spec.lora_name)) is None
                assert self._as_declared(spec) or (refused and gone), f"{stack}: {spec} is not served"
        assert not self._orphans()

    # --- parts

    def _declaration(self, stack: str, manifest: Any) -> Declaration:
        adapters = tuple(
            AdapterDeclaration(target=target, label=label, lora_name=name, lora_path=path)
            for target, label, name, path in manifest
        )
        return Declaration(
            stack=stack,
            targets={one.target: self.lab.spec(one.target) for one in adapters},
            adapters=adapters,
            policy=Policy(on_drift=self.policies[stack], interval=INTERVAL),  # type: ignore[arg-type] # one of two
        )

    def _apply(self, stack: str, declaration: Declaration, patch: bool, force: bool, adopt: bool, killed: Any) -> None:
        process = self.lab.process(stack, force=force, adopt=adopt)
        work = apply(
            process.fleet,
            declaration,
            SilentView(),
            mode="patch" if patch else "reconcile",
            options=PlanOptions(force=force, adopt=adopt),
        )
        wanted = self._patched(stack, declaration) if patch else declaration
        before = self.lab.store.stack(stack)
        done = self._command(process, work, killed)
        after = self.lab.store.stack(stack)
        if after is not None and (before is None or after.version != before.version):
            self.manifests[stack] = wanted
        if after is not None and not after.ending:
            assert _named(after.declaration["adapters"]) == _named(
                one.to_json() for one in self.manifests[stack].adapters
            )
        if done is not None:  # it said so
            self.lab.neglected |= {(one.action.target, one.action.name) for one in done.failed}
        if done is None or done.exit_code is not ExitCode.OK:
            return
        assert stack in self.manifests
        for spec in wanted.adapters if not patch else declaration.adapters:
            assert self._as_declared(spec), f"applied, and {spec} is not served"
        if not patch:
            places = {(spec.target, spec.lora_name) for spec in declaration.adapters}
            mine = {place for place, owner in self.lab.owners().items() if owner.stack == stack}
            assert mine == places

    def _patched(self, stack: str, patch: Declaration) -> Declaration:
        if stack not in self.manifests:
            return patch
        before = self.manifests[stack]
        named = {(one.target, one.lora_name): one for one in (*before.adapters, *patch.adapters)}
        targets = {**before.targets, **patch.targets}
        return Declaration(stack=stack, targets=targets, adapters=tuple(named.values()), policy=before.policy)

    def _command(self, process: Process, work: Any, killed: Any) -> Applied | None:
        """None where it was killed or rejected."""
        if killed is not None:
            process.light(killed[0], after=killed[1])
        task = process.start(work)
        rejected: ConflictError | None = None
        try:
            done: Applied | None = self.lab.run(_joined(task))
        except KilledError:
            done = None
        except ConflictError as error:
            rejected, done = error, None
        finally:
            self.lab.turn(process.bury())
        if rejected is not None:
            assert "conflicts" in rejected.details or self.agent is not None, f"held by nobody: {rejected.message}"
            self._justified(process, rejected)
        return done

    def _justified(self, process: Process, error: ConflictError) -> None:
        owners = self.lab.owners()
        for one in error.details.get("conflicts", ()):
            place = (one["target"], one["name"])
            owner = owners.get(place)
            theirs = owner is not None and owner.stack != process.stack
            rival = next((one for one in self.lab.store.stacks() if one.name != process.stack), None)
            if rival is not None:  # it may have been killed before it recorded what it loaded
                theirs = theirs or place in {(one["target"], one["lora_name"]) for one in rival.declaration["adapters"]}
            assert theirs or self.lab.loaded_by.get(place) == OTHERS, f"no conflict: {one}"

    def _as_declared(self, spec: AdapterDeclaration) -> bool:
        digest = self.lab.artifacts.digests.get(spec.lora_path)
        return self.lab.served((spec.target, spec.lora_name)) in (spec.lora_path, f"{STORE}/{digest}")

    def _pass(self, seconds: float) -> None:
        self.lab.run(asyncio.sleep(seconds))
        if self.agent is not None:
            assert not self.life.done(), f"the agent ended: {self.life}"

    def _heal(self, target: str) -> None:
        self.lab.targets[target].down = None
        self.lab.targets[target].faults.clear()


async def _joined(task: "asyncio.Task[Any]") -> Any:
    await asyncio.wait([task])
    return task.result()


def _places(manifest: Declaration) -> set[Place]:
    return {(one.target, one.lora_name) for one in manifest.adapters}


def _named(adapters: Any) -> set[tuple[str, str, str]]:
    return {(one["target"], one["lora_name"], one["lora_path"]) for one in adapters}


TestFleets = Fleets.TestCase
TestFleets.settings = settings(
    max_examples=int(os.environ.get("FLEET_MODEL_EXAMPLES", "400")),
    stateful_step_count=20,
    derandomize="FLEET_MODEL_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestFleets.pytestmark = [pytest.mark.timeout(300)]
