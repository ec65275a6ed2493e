"""What is asked of the disk before a plan, and how often."""

from collections import Counter
from dataclasses import replace

import pytest
from fleet_world import World

from garrison.fleet.context import Fleet
from garrison.fleet.operations.file_checks import _Files
from garrison.fleet.values.declaration import AdapterDeclaration
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.plan import Action, ActionKind
from garrison.fleet.values.target import TargetSpec
from garrison.testing.artifacts import MemoryArtifacts

PATH = "/models/sql"
BAD = Failure(code=FailureCode.INVALID_REQUEST, message="truncated")


class CountingArtifacts(MemoryArtifacts):
    """Counts the checks by path and rank."""

    def __init__(self, **fields):
        super().__init__(**fields)
        self.checks = Counter()

    def check(self, path, target, base_root):
        self.checks[path, target.max_lora_rank] += 1
        found = super().check(path, target, base_root)
        if found is not None and found.failure is not None:
            return replace(found, failure=replace(found.failure, message=f"{target.name}: {found.failure.message}"))
        return found


@pytest.fixture
def world():
    world = World(targets=3)
    world.artifacts = world.fleet.artifacts = CountingArtifacts(digests={PATH: "d1"})
    return world


def everywhere(world, adapters=1):
    return [
        AdapterDeclaration(target=name, label=f"a{at}", lora_name=f"a{at}", lora_path=PATH)
        for name in world.targets.targets
        for at in range(adapters)
    ]


async def test_the_disk_is_asked_in_batches(world, monkeypatch):
    hops = Counter()
    hop = Fleet.disk

    def counted(self, call, *args, **kwargs):
        hops["disk"] += 1
        return hop(self, call, *args, **kwargs)

    monkeypatch.setattr(Fleet, "disk", counted)
    drafted = await world.plan(world.declaration(*everywhere(world, adapters=200)))
    assert len(drafted.actions) == 600
    assert hops["disk"] <= 2 * 600 / 100 + 5


async def test_files_are_checked_once_for_targets_that_are_alike(world):
    declaration = world.declaration(*everywhere(world, adapters=5))
    narrow = replace(declaration.targets["edge-3"], max_lora_rank=8)
    await world.plan(replace(declaration, targets=declaration.targets | {"edge-3": narrow}))
    assert world.artifacts.checks == {(PATH, None): 1, (PATH, 8): 1}


async def test_a_target_with_a_store_is_not_like_one_without(world):
    declaration = world.declaration(*everywhere(world))
    stored = replace(declaration.targets["edge-3"], adapter_store="/store")
    await world.plan(replace(declaration, targets=declaration.targets | {"edge-3": stored}))
    assert world.artifacts.checks == {(PATH, None): 2}


async def test_each_failure_names_its_target(world):
    world.artifacts.refused[PATH] = BAD
    drafted = await world.plan(world.declaration(*everywhere(world)))
    assert {action.kind for action in drafted.actions} == {ActionKind.BLOCKED}
    assert [action.failure.message for action in drafted.actions] == [
        f"{name}: truncated" for name in ("edge-1", "edge-2", "edge-3")
    ]


async def test_what_could_not_be_checked_is_a_warning_of_the_plan(world):
    world.artifacts.digests["/models/poet"] = "d2"
    world.artifacts.untold = dict.fromkeys((PATH, "/models/poet"), ("whether it fits cannot be told",))
    poet = AdapterDeclaration(target="edge-1", label="poet", lora_name="poet", lora_path="/models/poet")
    drafted = await world.plan(world.declaration(*everywhere(world), poet))
    assert {action.kind for action in drafted.actions} == {ActionKind.CREATE}
    assert drafted.warnings == ("/models/poet and 1 more: whether it fits cannot be told",)


HERE = {
    "on this machine": ("http://localhost:8000", "/models/gone", True),
    "on this machine, by its number": ("http://127.0.0.1:8000", "/models/gone", True),
    "elsewhere": ("http://edge-1:8000", "/models/gone", False),
    "there": ("http://localhost:8000", PATH, False),
    "in the home of the server": ("http://localhost:8000", "~/gone", False),
    "in a repository": ("http://localhost:8000", "acme/gone", False),
}


@pytest.mark.parametrize(("url", "path", "warned"), HERE.values(), ids=HERE)
async def test_a_path_that_is_missing_on_the_machine_of_the_target(world, url, path, warned):
    files = _Files(world.artifacts)
    for name in ("edge-1", "edge-2"):
        spec = AdapterDeclaration(target=name, label="a", lora_name="a", lora_path=path)
        action = Action(kind=ActionKind.CREATE, target=name, name="a", label="a", reason="", desired=spec)
        assert files.failure(action, spec, TargetSpec(name=name, base_url=url), None) is None
    said = f"{path} does not exist on this machine, where edge-1 and 1 more are, or cannot be read"
    assert files.untold() == ([said] if warned else [])


async def test_the_plan_warns_of_it(world):
    declared = world.declaration(*(replace(one, lora_path="/models/gone") for one in everywhere(world)))
    here = replace(declared.targets["edge-1"], base_url="http://localhost:8000")
    plan = await world.plan(replace(declared, targets=declared.targets | {"edge-1": here}))
    assert plan.warnings == ("/models/gone does not exist on this machine, where edge-1 is, or cannot be read",)
