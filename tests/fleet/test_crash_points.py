"""Ended between any two steps: the store says what was intended, and a look at the target settles it.

The process is ended here by an exception that nothing catches; suites that drive real processes use SIGKILL.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fleet_bench import BASE, COMMAND, NEW, OLD, STACK, Bench, create, delete, rename, spec, update

from garrison.fleet.execute.checkpoints import CHECKPOINTS
from garrison.fleet.plan.interrupted import settle
from garrison.fleet.values.declaration import AdapterDeclaration
from garrison.fleet.values.observation import Served, Sighting
from garrison.fleet.values.plan import Action, ActionKind
from garrison.fleet.values.versions import answering
from garrison.store.records import ActionResult, ActionState
from garrison.testing.targets import MemoryFault, refusal


class KilledError(BaseException):
    """Stands for SIGKILL: no handler of Garrison sees it."""


@dataclass(frozen=True)
class Scene:
    """An action, and how it goes. `way`: the checkpoints it passes, in order."""

    action: Callable[[], Action]
    way: str
    prepare: Callable[[Bench], None] = lambda _bench: None
    serves: dict[str, str] = field(default_factory=dict)

    @property
    def passes(self) -> list[str]:
        return self.way.split()


def update_beside() -> Action:
    """From a version that has the plain name to one that has its own."""
    one = spec(digest="abcdef", versioned=True)
    return replace(rename("sql", one.served_name), desired=one, kind=ActionKind.UPDATE, gently=True)


def store(bench: Bench) -> None:
    bench.artifacts.default_store = "/store"
    bench.artifacts.digests[NEW] = "abc"


def broken_probe(bench: Bench) -> None:
    bench.edge.faults.append(MemoryFault("/v1/completions", refusal(500, "InternalServerError", "no"), times=2))


SCENES: dict[str, Scene] = {
    "load": Scene(create, "intended checked loaded verified probed recorded"),
    "load staged": Scene(
        lambda: create(spec(digest="abc"), stage=True, load_path="/store/abc"),
        "intended checked staged loaded verified probed recorded",
        store,
    ),
    "load that is undone": Scene(create, "intended checked loaded verified unloaded undone recorded", broken_probe),
    "swap": Scene(update, "intended checked looked unloaded loaded verified probed recorded", serves={"sql": OLD}),
    "swap that is put back": Scene(
        update,
        "intended checked looked unloaded loaded verified unloaded undone loaded put-back recorded",
        broken_probe,
        serves={"sql": OLD},
    ),
    "rename": Scene(
        rename,
        "intended checked loaded verified probed half-recorded looked unloaded gone recorded",
        serves={"sql": OLD},
    ),
    "update beside": Scene(
        update_beside,
        "intended checked loaded verified probed half-recorded looked unloaded gone recorded",
        serves={"sql": OLD},
    ),
    "unload": Scene(delete, "intended looked unloaded gone recorded", serves={"sql": OLD}),
}


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def prepared(bench: Bench, scene: Scene) -> Bench:
    bench.serve(**scene.serves)
    scene.prepare(bench)
    return bench


def test_every_checkpoint_is_on_some_way() -> None:
    assert {name for scene in SCENES.values() for name in scene.passes} == set(CHECKPOINTS)


@pytest.mark.parametrize("name", SCENES)
async def test_the_way(bench: Bench, name: str) -> None:
    passed: list[str] = []
    await prepared(bench, SCENES[name]).run(SCENES[name].action(), checkpoint=passed.append)
    assert passed == SCENES[name].passes


POINTS = [(name, at) for name, scene in SCENES.items() for at in range(len(scene.passes))]


@pytest.mark.parametrize(
    ("name", "at"), POINTS, ids=[f"{name}, {SCENES[name].passes[at]} ({at})" for name, at in POINTS]
)
async def test_killed(bench: Bench, name: str, at: int) -> None:
    scene = SCENES[name]
    prepared(bench, scene)
    await killed(bench, scene, at)
    record = bench.record()
    if scene.passes[at] == "recorded":
        assert record.state in (ActionState.DONE, ActionState.FAILED)
    else:
        assert record.state is ActionState.STARTED
        assert (record.after is None) == (name == "unload")
        assert (record.before is None) == (not scene.serves)
        if record.after is not None:
            assert record.after["served_path"] == ("/store/abc" if name == "load staged" else NEW)
            assert AdapterDeclaration(**record.after["spec"]).served_name == record.key.name
        if record.before is not None:
            assert record.before["served_path"] == OLD
            assert record.before.get("name", "sql") == "sql"
        settled(bench)
    consistent(bench)


async def killed(bench: Bench, scene: Scene, at: int) -> None:
    left = at

    def kill(_name: str) -> None:
        nonlocal left
        if left == 0:
            raise KilledError
        left -= 1

    with pytest.raises(KilledError):
        await bench.run(scene.action(), checkpoint=kill)


def settled(bench: Bench) -> None:
    """What the next run does first."""
    served = {BASE: Served(BASE, BASE, None)}
    served |= {name: Served(name, path, BASE) for name, path in bench.edge.served.items()}
    seen = Sighting(target="edge", at=bench.clock.now(), served=served, base=BASE)
    recorded: dict[Any, Any] = {one.key: one for one in bench.store.resources(stack=STACK)}
    open_actions = [one for one in bench.store.actions(COMMAND) if one.state is ActionState.STARTED]
    for end in settle(STACK, open_actions, recorded, {"edge": seen}, bench.clock.now()):
        bench.store.save_actions([ActionResult(action=end.action, resources=end.resources)])


def consistent(bench: Bench) -> None:
    """What is served is owned, from the path on record; what is on record as served is served."""
    owned = {name: one.served_path for name, one in bench.owned().items() if one.operation.serves}
    assert owned == bench.edge.served
    assert bench.record().state is not ActionState.STARTED


@pytest.mark.parametrize("at", range(len(SCENES["update beside"].passes) - 1))
async def test_a_version_answers_only_if_it_was_probed(bench: Bench, at: int) -> None:
    scene = SCENES["update beside"]
    await killed(prepared(bench, scene), scene, at)
    settled(bench)
    new = spec(digest="abcdef", versioned=True).served_name
    serving = [one for one in bench.owned().values() if one.operation.serves]
    answers = answering(serving, new)
    assert answers is not None
    assert answers.key.name in bench.edge.served
    probed = at >= scene.passes.index("half-recorded")
    assert answers.key.name == (new if probed else "sql")
