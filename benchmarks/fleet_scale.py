"""What the fleet's work costs as the fleet grows: apply, plan, one repair, many repairs, an idle look, reload, prune.

    python benchmarks/fleet_scale.py [--quick] [--targets 100 1000 5000] [--only repair apply …] [--json FILE]

Targets are the in-memory twins, so that the figures are those of Garrison and its SQLite database alone: CPU seconds
of this process (the twins included), the longest stop of the event loop, and the bytes that it sent to disk.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop

from garrison.base.garbage import keep_out_of_collections
from garrison.fleet.agent.loop import Agent
from garrison.fleet.artifacts.disk import DiskArtifacts
from garrison.fleet.context import Fleet
from garrison.fleet.execute.steps import ExecuteOptions
from garrison.fleet.management.local import LocalOperations
from garrison.fleet.management.requests import ApplyRequest
from garrison.fleet.manifest.dump import dump_manifest
from garrison.fleet.manifest.load import load_declaration
from garrison.fleet.operations.apply import apply, preview
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration, Policy
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.view import SilentView
from garrison.store.records import Key, Operation, Resource
from garrison.store.sql.store import open_store
from garrison.testing.artifacts import MemoryArtifacts
from garrison.testing.targets import MemoryTarget, MemoryTargets

ADAPTERS = 10
PLANNED = 20
"""Adapters of each target in `documents`."""
BASE = "acme/tiny"
_TICK = 0.005


@dataclass(slots=True)
class Cost:
    """CPU seconds, wall seconds, bytes sent to disk, and the longest stop of the event loop in seconds."""

    cpu: float = 0.0
    wall: float = 0.0
    written: int = 0
    stop: float = 0.0


@contextlib.asynccontextmanager
async def measured() -> AsyncIterator[Cost]:
    cost = Cost()
    done = False

    async def pulse() -> None:
        while not done:
            last = time.perf_counter()
            await asyncio.sleep(_TICK)
            cost.stop = max(cost.stop, time.perf_counter() - last - _TICK)

    beat = asyncio.create_task(pulse())
    await asyncio.sleep(0)
    written, cpu, begun = bytes_written(), time.process_time(), time.perf_counter()
    try:
        yield cost
    finally:
        cost.cpu, cost.wall = time.process_time() - cpu, time.perf_counter() - begun
        cost.written = bytes_written() - written
        done = True
        await beat


def bytes_written() -> int:
    """Bytes that this process has given the kernel to write."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["wchar"])


class Bench:
    """A fleet of `count` targets with `adapters` each, declared by one stack, over a database of its own."""

    def __init__(self, directory: Path, count: int, adapters: int = ADAPTERS, stack: str = "bench") -> None:
        self.stack, self.count, self.adapters = stack, count, adapters
        self.targets = MemoryTargets({f"t{at:05}": MemoryTarget(base=BASE) for at in range(count)})
        self.store = open_store(directory / f"{stack}-{count}-{time.time_ns()}.db")
        self.fleet = Fleet(store=self.store, dialer=self.targets, artifacts=MemoryArtifacts(), draws=random.Random(0))

    def declaration(self, *, adapters: int | None = None, version: str = "v1") -> Declaration:
        names = list(self.targets.targets)
        return Declaration(
            stack=self.stack,
            targets={name: TargetSpec(name=name, base_url=f"http://{name}:8000") for name in names},
            adapters=tuple(
                AdapterDeclaration(
                    target=name, label=f"a{at}", lora_name=f"a{at}", lora_path=f"/models/{version}/a{at}"
                )
                for name in names
                for at in range(self.adapters if adapters is None else adapters)
            ),
            policy=Policy(on_drift="restore", interval=3600.0),
        )

    async def apply(self, declaration: Declaration) -> Any:
        return await apply(
            self.fleet,
            declaration,
            SilentView(),
            options=PlanOptions(),
            execution=ExecuteOptions(probe=False),
        )

    async def agent(self, **options: Any) -> Agent:
        agent = Agent(self.fleet, SilentView(), **options)
        await agent.startup()
        await agent.once()
        return agent

    def close(self) -> None:
        self.fleet.close()


@contextlib.contextmanager
def bench(directory: Path, count: int, adapters: int = ADAPTERS, stack: str = "bench") -> Any:
    made = Bench(directory, count, adapters, stack)
    try:
        yield made
    finally:
        made.close()


async def until(found: Callable[[], bool], seconds: float = 600.0, *, quiet: bool = False) -> None:
    deadline = time.perf_counter() + seconds
    while not found():
        if time.perf_counter() > deadline:
            if quiet:
                return
            raise TimeoutError
        await asyncio.sleep(0.01)


async def apply_all(directory: Path, count: int) -> dict[str, float]:
    """A first apply of everything; then the plan of the same, and an apply that finds nothing to do."""
    with bench(directory, count) as one:
        declaration = one.declaration()
        async with measured() as cost:
            done = await one.apply(declaration)
        assert len(done.outcomes) == count * ADAPTERS
        async with measured() as again:
            await preview(one.fleet, declaration, SilentView(), options=PlanOptions())
    items = count * ADAPTERS
    return {
        "apply, ms CPU an adapter": cost.cpu / items * 1e3,
        "apply, loop stopped ms": cost.stop * 1e3,
        "plan of nothing, ms CPU an adapter": again.cpu / items * 1e3,
    }


async def one_adapter(directory: Path, count: int) -> dict[str, float]:
    """A stack of one target and one adapter beside a fleet of `count` targets."""
    with bench(directory, count) as one:
        await one.apply(one.declaration())
        one.targets.targets["single"] = MemoryTarget(base=BASE)
        spec = TargetSpec(name="single", base_url="http://single:8000")
        costs = []
        for at in range(5):
            adapter = AdapterDeclaration(target="single", label="a", lora_name=f"n{at}", lora_path=f"/models/{at}")
            async with measured() as cost:
                await one.apply(Declaration(stack="small", targets={"single": spec}, adapters=(adapter,)))
            costs.append(cost.cpu)
    return {"apply of one adapter beside them, ms CPU": sorted(costs)[len(costs) // 2] * 1e3}


async def one_confirmed(directory: Path, count: int) -> dict[str, float]:
    """The same as the commands do it, with the facts that they show: applied at once, as with --yes, and planned, shown
    and confirmed by fingerprint."""
    with bench(directory, count) as one:
        await one.apply(one.declaration())
        one.targets.targets["single"] = MemoryTarget(base=BASE)
        spec = TargetSpec(name="single", base_url="http://single:8000")
        operations, view = LocalOperations(one.fleet), SilentView()
        costs: dict[bool, list[float]] = {False: [], True: []}
        gc.collect()
        gc.freeze()  # the fleet of twins is not Garrison's memory: a command would not walk through it
        for at in range(120):
            ask = at % 2 == 0
            adapter = AdapterDeclaration(target="single", label="a", lora_name=f"n{at}", lora_path=f"/models/{at}")
            declaration = Declaration(stack="small", targets={"single": spec}, adapters=(adapter,))
            request = ApplyRequest(declaration=declaration)
            async with measured() as cost:
                await operations.targets(declaration.targets, stack="small")
                shown = await operations.plan(request, view, settle=True) if ask else None
                done = await operations.apply(request, view, fingerprint=shown.fingerprint if shown else None)
            assert [len(done.outcomes), done.exit_code] == [1, 0]
            costs[ask].append(cost.cpu)
    gc.unfreeze()
    # The first ones import modules and prepare statements.
    median = {ask: sorted(found[5:])[len(found[5:]) // 2] * 1e3 for ask, found in costs.items()}
    return {"apply of one adapter, ms CPU": median[False], "plan, confirm, apply one, ms CPU": median[True]}


async def repair(directory: Path, count: int) -> dict[str, float]:
    """One target is restarted; then all of them at once, with a stop in the middle of it the second time."""
    with bench(directory, count) as one:
        await one.apply(one.declaration())
        agent = await one.agent()
        loop = asyncio.create_task(agent.main_loop())
        await asyncio.sleep(0.3)
        costs, stops, rates = [], [], []
        for _ in range(3):
            async with measured() as cost:
                await until(lambda: False, 1.0, quiet=True)
            rates.append(cost.cpu / cost.wall)
        for name in list(one.targets.targets)[:18:2]:
            target = one.targets[name]
            target.restart()
            repaired = agent.state.repaired
            async with measured() as cost:
                agent._looks.look_again(agent._list.targets[name])
                agent._wake.set()
                await until(lambda: agent.state.repaired - repaired >= ADAPTERS)  # noqa: B023
                await asyncio.sleep(0.3)
            costs.append(cost.cpu - min(rates) * cost.wall)
            stops.append(cost.stop)
        for target in one.targets.targets.values():
            target.restart()
        repaired = agent.state.repaired
        async with measured() as lost:
            agent._looks.all_due()
            agent._wake.set()
            await until(lambda: agent.state.repaired - repaired >= ADAPTERS * count)
        for target in one.targets.targets.values():
            target.restart()
        repaired = agent.state.repaired
        agent._looks.all_due()
        agent._wake.set()
        await until(lambda: sum(len(target.served) for target in one.targets.targets.values()) > count)
        begun = time.perf_counter()
        agent.request_stop()
        await loop
        await agent.shutdown()
        stopped = time.perf_counter() - begun
    return {
        "repair of one target, ms CPU": sorted(costs)[len(costs) // 2] * 1e3,
        "repair of one target, loop stopped ms": max(stops) * 1e3,
        "all lost, ms CPU an adapter": lost.cpu / (count * ADAPTERS) * 1e3,
        "stop in the middle, s": stopped,
    }


async def idle(directory: Path, count: int) -> dict[str, float]:
    """Two minutes of looks at an interval of five seconds, with the clock ahead of time."""
    with bench(directory, count) as one:
        declaration = replace(one.declaration(), policy=Policy(on_drift="restore", interval=5.0))
        await one.apply(declaration)
        clock = _Fast()
        one.fleet.clock = clock
        agent = await one.agent()
        looks = agent.state.looks
        async with measured() as cost:
            for _ in range(24):
                clock.ahead += 5.0
                agent._looks.all_due()
                await agent.step()
                await until(lambda: not agent._looks.busy)
                await agent.step()
        looks = agent.state.looks - looks
        await agent.shutdown()
    return {"idle, bytes a look": cost.written / looks, "idle, us CPU a look": cost.cpu / looks * 1e6}


class _Fast:
    """The system's clock, some seconds ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing blocks the loop")


async def reload(directory: Path, count: int) -> dict[str, float]:
    """The agent follows an apply of one more adapter at one of the targets, then a change of every target.

    Four adapters a target.
    """
    with bench(directory, count, 4) as one:
        await one.apply(one.declaration())
        agent = await one.agent()
        keep_out_of_collections()  # as the command does
        declaration = one.declaration()
        more = AdapterDeclaration(target="t00003", label="more", lora_name="more", lora_path="/models/more")
        await one.apply(replace(declaration, adapters=(*declaration.adapters, more)))
        async with measured() as cost:
            await agent._follow()
            await agent.step()
        assert "more" in agent._list.targets["t00003"].wanted
        agent._list._revision = 0  # as if every target had changed
        async with measured() as everything:
            await agent._follow()
        await agent.shutdown()
    return {
        "reload, loop stopped ms": cost.stop * 1e3,
        "reload, ms CPU": cost.cpu * 1e3,
        "reload of all, loop stopped ms": everything.stop * 1e3,
        "reload of all, ms CPU a target": everything.cpu * 1e3 / count,
    }


async def prune(directory: Path, count: int) -> dict[str, float]:
    """`20 * count` superseded versions of ten keys, and how long another writer waits meanwhile."""
    versions = 20 * count
    store = open_store(directory / f"prune-{count}.db")
    old = datetime.now(UTC) - timedelta(days=100)
    made = [
        Resource(
            key=Key("t", ADAPTER_TYPE, f"a{at % 10}"),
            stack="bench",
            label="a",
            operation=Operation.UPDATED,
            spec={"lora_path": "/models/a", "at": at},
            served_path="/models/a",
            parent=BASE,
            at=old,
        )
        for at in range(versions)
    ]
    for at in range(0, versions, 1000):
        store.put(made[at : at + 1000])
    longest = 0.0

    async def write() -> None:
        nonlocal longest
        while True:
            begun = time.perf_counter()
            await asyncio.to_thread(store.put_content, "/a", "s", str(begun))
            longest = max(longest, time.perf_counter() - begun)
            await asyncio.sleep(0.002)

    writer = asyncio.create_task(write())
    async with measured() as cost:
        gone = await asyncio.to_thread(store.prune, datetime.now(UTC) - timedelta(days=90))
    writer.cancel()
    await asyncio.wait([writer])
    assert gone == versions - 10
    store.close()
    return {"prune, us CPU a version": cost.cpu / versions * 1e6, "prune, another writer waits ms": longest * 1e3}


async def documents(directory: Path, count: int) -> dict[str, float]:
    """A JSON manifest with 20 adapters a target, read, printed (`eval`) and planned: with files that cannot be read
    here, and with files here and a store."""
    with bench(directory, count, PLANNED) as one:
        path = directory / "fleet.json"
        names = list(one.targets.targets)
        manifest = {
            "stack": "bench",
            "targets": {name: {"base_url": f"http://{name}:8000"} for name in names},
            "adapters": {f"a{at}": {"lora_path": f"/models/a{at}", "targets": names} for at in range(PLANNED)},
        }
        path.write_text(json.dumps(manifest, indent=1))
        begun = time.process_time()
        loaded = load_declaration([str(path)], environ={})
        read = time.process_time() - begun
        dump_manifest(loaded.declaration)
        printed = time.process_time() - begun
        async with measured() as cost:
            found = await preview(one.fleet, loaded.declaration, SilentView(), options=PlanOptions())
        assert len(found.actions) == count * PLANNED
        here = with_files(loaded.declaration, directory / "files")
        one.fleet.artifacts = DiskArtifacts(directory / "data", "bench", record=one.store)
        async with measured() as staged:
            found = await preview(one.fleet, here, SilentView(), options=PlanOptions())
        assert all(action.stage for action in found.actions)
    return {
        "read a JSON manifest of 20 each, s CPU": read,
        "eval of it, s CPU": printed,
        "plan of it, s CPU": read + cost.cpu,
        "plan of it, s": read + cost.wall,
        "plan of it, us CPU an adapter": cost.cpu / len(found.actions) * 1e6,
        "plan of it with files and a store here, s CPU": read + staged.cpu,
    }


def with_files(declaration: Declaration, directory: Path) -> Declaration:
    """The same adapters with files on this machine, and a store that all targets share."""
    settled = time.time() - 60
    for label in {adapter.label for adapter in declaration.adapters}:
        path = directory / label
        path.mkdir(parents=True, exist_ok=True)
        write_adapter(path)
        for file in path.iterdir():
            os.utime(file, (settled, settled))
    adapters = [replace(one, lora_path=str(directory / one.label)) for one in declaration.adapters]
    targets = {name: replace(one, adapter_store=str(directory)) for name, one in declaration.targets.items()}
    return replace(declaration, targets=targets, adapters=tuple(adapters))


def write_adapter(path: Path) -> None:
    """A LoRA adapter of 64 tensors, as small as one can be."""
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
    (path / "adapter_config.json").write_text(json.dumps(config))
    tensors, at = {}, 0
    for layer in range(32):
        for side, shape in (("A", [8, 64]), ("B", [64, 8])):
            name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight"
            tensors[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 1024]}
            at += 1024
    head = json.dumps(tensors).encode()
    (path / "adapter_model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(at))


async def one_plan(directory: Path, count: int) -> dict[str, float]:
    """The plan of a stack of one target and one adapter beside a fleet of `count` targets."""
    with bench(directory, count) as one:
        await one.apply(one.declaration())
        one.targets.targets["single"] = MemoryTarget(base=BASE)
        spec = TargetSpec(name="single", base_url="http://single:8000")
        adapter = AdapterDeclaration(target="single", label="a", lora_name="a", lora_path="/models/a")
        single = Declaration(stack="small", targets={"single": spec}, adapters=(adapter,))
        costs = []
        for _ in range(21):
            async with measured() as cost:
                await preview(one.fleet, single, SilentView(), options=PlanOptions())
            costs.append(cost.cpu)
    return {"plan of one adapter beside them, ms CPU": sorted(costs)[len(costs) // 2] * 1e3}


SUBJECTS = {
    "apply": apply_all,
    "one": one_adapter,
    "one-plan": one_plan,
    "confirmed": one_confirmed,
    "repair": repair,
    "idle": idle,
    "reload": reload,
    "prune": prune,
    "documents": documents,
}


def main() -> None:
    shell = argparse.ArgumentParser(description="What the fleet's work costs as the fleet grows.")
    shell.add_argument("--targets", type=int, nargs="+", default=[100, 1000, 5000])
    shell.add_argument("--only", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    shell.add_argument("--quick", action="store_true", help="a smoke test: 20 and 40 targets")
    shell.add_argument("--json", type=Path, help="write the figures here")
    args = shell.parse_args()
    if args.quick:
        args.targets = [20, 40]
    found: dict[str, dict[int, float]] = {}
    with tempfile.TemporaryDirectory(prefix="garrison-bench.") as directory:
        for subject in args.only:
            for count in args.targets:
                for name, value in uvloop.run(SUBJECTS[subject](Path(directory), count)).items():
                    found.setdefault(name, {})[count] = value
            for name, values in found.items():
                if values and name not in _SHOWN:
                    _SHOWN.add(name)
                    print(f"{name:50}", *(f"{values[count]:12.3f}" for count in args.targets), flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


_SHOWN: set[str] = set()


if __name__ == "__main__":
    main()
