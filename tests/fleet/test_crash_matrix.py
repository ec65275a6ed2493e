"""SIGKILL between every two steps: a real process applies to a simulator, over a database file and adapter files, and
dies at a checkpoint; whoever comes next, another apply or the agent, brings the target to what was declared.

Which checkpoints a way passes is found out by letting it live once. `fleet_child` is the process that dies.
"""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fleet_nursery import PARALLEL, Nursery
from tiny_model import make_adapter

from garrison.base.clock import SystemClock
from garrison.base.identity import start_time
from garrison.fleet.artifacts.disk import default_store
from garrison.fleet.artifacts.gc import collect_all
from garrison.fleet.execute.checkpoints import CHECKPOINTS
from garrison.fleet.values import events
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration, versioned_name
from garrison.fleet.values.target import TargetSpec
from garrison.models.adapters.adapter import adapter_digest
from garrison.sim.config import SimConfig
from garrison.sim.faults import Faults, Rule
from garrison.sim.simulator import Simulator
from garrison.store.records import ActionState, CommandState, Key
from garrison.store.sql.store import open_store

pytestmark = [pytest.mark.system]

BASE = "acme/tiny"

Wanted = dict[str, str]
"""Adapter name to the files it is loaded from."""


@dataclass(frozen=True)
class Way:
    """How a target and a stack are before, and what is declared then.

    Attributes:
        before: what is applied first; None: nothing ever was.
        others: what somebody loaded or unloaded (None) after that.
        labels: the manifest's keys, where they are not the names.
        faults: what the server does wrong while the process that dies is at work.
        drift: what may rightly be reported about others.
        like: a way that begins as this one does; only one of them is killed there.
        versioned: versions have names of their own.
    """

    wanted: Wanted
    before: Wanted | None = None
    others: dict[str, str | None] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    drift: int = 0
    like: str | None = None
    versioned: bool = False


BROKEN_LOAD = Rule(path="/v1/load_lora_adapter", action="status", status=400, message="no", times=1)
BROKEN_PROBE = Rule(path="/v1/completions", action="status", status=500, times=1)

WAYS: dict[str, Way] = {
    "load": Way({"sql": "v1"}),
    "load that is undone": Way({"sql": "v1"}, faults=Faults(script=(BROKEN_PROBE,)), like="load"),
    "swap": Way({"sql": "v2"}, before={"sql": "v1"}),
    "swap with a failed load": Way(
        {"sql": "v2"}, before={"sql": "v1"}, faults=Faults(script=(BROKEN_LOAD,)), like="swap"
    ),
    "swap that is put back": Way(
        {"sql": "v2"}, before={"sql": "v1"}, faults=Faults(script=(BROKEN_PROBE,)), like="swap"
    ),
    "load then unload": Way({"code": "v1"}, before={"sql": "v1"}, labels={"sql": "main", "code": "main"}),
    "update beside": Way({"sql": "v2"}, before={"sql": "v1"}, versioned=True),
    "unload": Way({}, before={"sql": "v1"}),
    "adopt": Way({"sql": "v1"}, others={"sql": "v1"}),
    "release": Way({}, before={"sql": "v1"}, others={"sql": None}, drift=1),
}
AROUND = [
    ["declare", "before"],  # it has looked, and said nothing
    ["declare", "after"],  # it has said what it will do, and done nothing
    ["finish", "before"],
    ["finish", "after"],
]


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("home"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`v1` and `v2`, adapters."""
    root = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("v1", "v2"), start=1):
        make_adapter(root / name, seed=seed)
    return root


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of this program's schema, to copy."""
    path = tmp_path_factory.mktemp("db") / "empty.db"
    open_store(path).close()
    return path


@dataclass
class Place:
    """One server, one database, one adapter store."""

    nursery: Nursery
    sim: Simulator
    root: Path
    files: Path
    way: Way

    @property
    def db(self) -> Path:
        return self.root / "garrison.db"

    def manifest(self, wanted: Wanted) -> dict[str, Any]:
        target = TargetSpec(name="edge", base_url=self.sim.url)
        adapters = tuple(
            AdapterDeclaration(
                target="edge",
                label=self.way.labels.get(name, name),
                lora_name=name,
                lora_path=str(self.files / path),
                versioned=self.way.versioned,
            )
            for name, path in wanted.items()
        )
        return Declaration(stack="lab", targets={"edge": target}, adapters=adapters).to_json()

    async def run(self, do: str, **job: Any) -> dict[str, Any]:
        return await self.nursery.run(do=do, db=str(self.db), data=str(self.root), **job)

    async def prepare(self) -> None:
        self.load("theirs", str(self.files / "v2"))
        if self.way.before is not None:
            done = await self.run("apply", declaration=self.manifest(self.way.before))
            assert done["code"] == 0, done
        for name, path in self.way.others.items():
            if path is None:
                assert self.sim.state.engine.unload(name) is None
            else:
                self.load(name, str(self.files / path))

    def load(self, name: str, path: str) -> None:
        assert self.sim.state.engine.load(name, path, in_place=False) is None

    async def deadly(self, **how: Any) -> dict[str, Any]:
        """The apply that may be killed."""
        self.sim.faults = self.way.faults
        done = await self.run("apply", declaration=self.manifest(self.way.wanted), **how)
        self.sim.faults = Faults()
        return done

    def served(self) -> dict[str, str]:
        return {name: one.path for name, one in self.sim.state.engine.adapters.items() if name != "theirs"}

    def check(self, wanted: Wanted) -> None:
        """The target is as declared, the store tells the truth, and nothing is left lying about."""
        expected = {self.name_of(name, path): self.path_of(path, name) for name, path in wanted.items()}
        assert self.served() == expected
        assert self.sim.state.engine.adapters["theirs"].path == str(self.files / "v2")
        store = open_store(self.db)
        try:
            self._check_store(store, expected, wanted)
            collect_all(store, self.root, SystemClock(), grace=-1.0)
        finally:
            store.close()
        kept = default_store(self.root)
        left = {path.name for path in kept.iterdir() if path.is_dir()} if kept.is_dir() else set()
        assert left == {Path(path).name for path in expected.values() if Path(path).parent == kept}

    def name_of(self, name: str, path: str) -> str:
        """What the target calls it."""
        return versioned_name(name, adapter_digest(self.files / path) or "") if self.way.versioned else name

    def path_of(self, path: str, name: str) -> str:
        """What others loaded as declared stays where it is."""
        if self.way.others.get(name) == path:
            return str(self.files / path)
        return str(default_store(self.root) / adapter_digest(self.files / path))

    def _check_store(self, store: Any, expected: dict[str, str], wanted: Wanted) -> None:
        commands = store.commands()
        assert CommandState.RUNNING not in {one.state for one in commands}
        for command in commands:
            states = {one.state for one in store.actions(command.id)}
            assert not states & {ActionState.STARTED, ActionState.PLANNED}
        assert {one.key.name: one.served_path for one in store.resources()} == expected
        assert all(one.operation.serves for one in store.resources())
        for name in ("sql", "code"):
            numbers = [one.version for one in store.versions(Key("edge", ADAPTER_TYPE, name))]
            assert numbers == list(range(1, len(numbers) + 1))
        assert not [one for one in store.leases() if start_time(one.holder.pid) == one.holder.started]
        drift = store.events(kinds={events.DRIFT})
        assert len(drift) <= self.way.drift, f"nobody did that: {drift}"
        declared = store.stack("lab").declaration["adapters"] if store.stack("lab") else []
        assert {one["lora_name"] for one in declared} == set(wanted)


Lab = Callable[[str, str], Any]


@pytest.fixture
def place(nursery: Nursery, files: Path, empty: Path, tmp_path: Path) -> Lab:
    nursery.open()

    @asynccontextmanager
    async def make(name: str, label: str) -> AsyncIterator[Place]:
        root = tmp_path / label
        root.mkdir()
        shutil.copyfile(empty, root / "garrison.db")
        config = SimConfig(port=0, model=BASE, enable_lora=True, runtime_lora=True, max_cpu_loras=8)
        async with Simulator(config) as sim:
            made = Place(nursery, sim, root, files, WAYS[name])
            await made.prepare()
            yield made

    return make


PASSED: dict[str, list[str]] = {}
"""The checkpoints of each way, in order, as found out."""


async def passed(place: Lab, name: str) -> list[str]:
    if name not in PASSED:
        async with place(name, "alive") as there:
            done = await there.deadly()
            assert done["signal"] is None
            assert done["code"] == (30 if there.way.faults.script else 0), done
            PASSED[name] = done["passed"]
    return PASSED[name]


async def come_next(there: Place, who: str, *, declared: bool = True) -> None:
    wanted = there.way.wanted
    if who == "apply":
        done = await there.run("apply", declaration=there.manifest(wanted))
    else:
        done = await there.run("agent")
        if not declared:
            wanted = there.way.before or {}
    assert done["code"] == 0, done
    there.check(wanted)


async def all_of(cases: list[Any]) -> None:
    """Side by side; every failure is reported."""
    failures = [one for one in await asyncio.gather(*cases, return_exceptions=True) if one is not None]
    if failures:
        raise BaseExceptionGroup(f"{len(failures)} of {len(cases)} deaths", failures)


@pytest.mark.parametrize("who", ["apply", "agent"])
@pytest.mark.parametrize("name", WAYS)
async def test_killed_between_two_steps(place: Lab, name: str, who: str) -> None:
    points = await passed(place, name)
    like = WAYS[name].like
    known = await passed(place, like) if like else []
    first = next((at for at, (one, other) in enumerate(zip(points, known, strict=False)) if one != other), len(known))
    room = asyncio.Semaphore(2 * PARALLEL)

    async def case(at: int) -> None:
        async with room, place(name, f"{at}-{points[at]}") as there:
            try:
                done = await there.deadly(kill=at)
                assert done["signal"] == signal.SIGKILL
                assert done["passed"] == points[: at + 1]
                await come_next(there, who)
            except BaseException as error:
                error.add_note(f"killed at {points[at]} ({at} of {points}), then the {who}")
                raise

    await all_of([case(at) for at in range(first, len(points))])


@pytest.mark.parametrize("who", ["apply", "agent"])
@pytest.mark.parametrize("at", AROUND, ids=lambda at: " ".join(reversed(at)))
async def test_killed_around_the_steps(place: Lab, at: list[str], who: str) -> None:
    room = asyncio.Semaphore(2 * PARALLEL)

    async def case(name: str) -> None:
        async with room, place(name, name.replace(" ", "-")) as there:
            try:
                done = await there.deadly(kill_at=at)
                assert done["signal"] == signal.SIGKILL
                await come_next(there, who, declared=at != ["declare", "before"])
            except BaseException as error:
                error.add_note(f"{name}: killed {at[1]} {at[0]}, then the {who}")
                raise

    await all_of([case(name) for name in ("load", "swap", "load then unload", "unload")])


async def test_every_checkpoint_is_on_some_way(place: Lab) -> None:
    found = {point for name in WAYS for point in await passed(place, name)}
    assert found == set(CHECKPOINTS)


async def test_a_dead_process_is_not_waited_for(place: Lab) -> None:
    """Its lease says it has half a minute left."""
    async with place("load", "lease") as there:
        await there.deadly(kill=0)
        store = open_store(there.db)
        try:
            (lease,) = store.leases()
            assert (lease.expires_at - SystemClock().now()).total_seconds() > 15
        finally:
            store.close()
        begun = asyncio.get_running_loop().time()
        await come_next(there, "apply")
        assert asyncio.get_running_loop().time() - begun < 10
