"""Targets that two stacks declare: neither changes their settings for the other."""

from dataclasses import replace
from typing import Any

import pytest
from fleet_world import World, adapter

from garrison.base.errors import ConflictError
from garrison.base.exit_codes import ExitCode
from garrison.fleet.values import events
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration
from garrison.fleet.values.plan import ActionKind
from garrison.fleet.values.target import TargetSpec
from garrison.net.endpoint import Secret, Tls

KEY = Secret("env", "EDGE_KEY")
EDGE = TargetSpec(name="edge-1", base_url="http://edge-1:8000", api_key=KEY, labels={"site": "lab"})


@pytest.fixture
def world() -> World:
    return World()


def stack(name: str, *adapters: AdapterDeclaration, **changes: Any) -> Declaration:
    return Declaration(stack=name, targets={"edge-1": replace(EDGE, **changes)}, adapters=adapters)


def on_record(world: World) -> TargetSpec:
    (record,) = world.store.targets()
    return TargetSpec.from_json(record.name, record.spec)


CHANGES = {
    "api_key": {"api_key": None},
    "another key": {"api_key": Secret("env", "OTHER")},
    "labels": {"labels": {}},
    "tls": {"tls": Tls(insecure=True)},
    "headers": {"headers": {"x-team": Secret("env", "TEAM")}},
    "adapter_store": {"adapter_store": "/srv/adapters"},
    "base_model": {"base_model": "acme/tiny"},
    "max_lora_rank": {"max_lora_rank": 8},
    "prefix_caching": {"prefix_caching": False},
    "timeout": {"timeout": 9.0},
    "load_timeout": {"load_timeout": 9.0},
    "probe": {"probe": True},
    "scheme": {"base_url": "https://edge-1:8000"},
}
FIELDS = {"another key": "api_key", "scheme": "base_url"}


@pytest.mark.parametrize("case", CHANGES)
async def test_settings_of_another_stacks_target_are_not_changed(world: World, case: str) -> None:
    await world.apply(stack("alpha", adapter()))
    field = FIELDS.get(case, case)
    with pytest.raises(ConflictError, match=f"stack beta would change {field} of target edge-1.*stack alpha") as raised:
        await world.apply(stack("beta", adapter("chat"), **CHANGES[case]))
    assert raised.value.exit_code == ExitCode.CONFLICT
    assert raised.value.details["targets"] == [{"target": "edge-1", "fields": [field], "stacks": ["alpha"]}]
    assert on_record(world) == EDGE
    assert [one.name for one in world.store.stacks()] == ["alpha"]
    assert world.edge.served == {"sql": "/models/sql"}


async def test_a_plan_says_so_too(world: World) -> None:
    await world.apply(stack("alpha", adapter()))
    with pytest.raises(ConflictError, match="labels, api_key"):
        await world.plan(stack("beta", api_key=None, labels={}))


@pytest.mark.parametrize("mode", ["reconcile", "patch"])
async def test_force_changes_them_for_all(world: World, mode: str) -> None:
    await world.apply(stack("alpha", adapter()))
    await world.apply(stack("beta", adapter("chat"), labels={"site": "roof"}), mode=mode, force=True)
    assert on_record(world).labels == {"site": "roof"}
    with pytest.raises(ConflictError, match="stack alpha would change labels of target edge-1, which stack beta also"):
        await world.apply(stack("alpha", adapter(), adapter("more")))


async def test_stacks_that_agree_plan_nothing(world: World) -> None:
    await world.apply(stack("alpha", adapter()))
    await world.apply(stack("beta", adapter("chat")))
    for one in (stack("alpha", adapter()), stack("beta", adapter("chat"))):
        planned = await world.plan(one)
        assert [action.kind for action in planned.actions] == [ActionKind.KEEP]
        assert planned.empty


async def test_another_spelling_of_a_plain_address_is_no_change(world: World) -> None:
    world.targets.targets["edge-1"] = world.edge
    await world.apply(stack("alpha", adapter(), base_url="http://localhost:8000"))
    await world.apply(stack("beta", adapter("chat"), base_url="http://127.0.0.1:8000"))
    assert world.edge.served == {"sql": "/models/sql", "chat": "/models/chat"}


async def test_a_stack_may_change_its_own_target(world: World) -> None:
    await world.apply(stack("alpha", adapter()))
    await world.apply(stack("alpha", adapter(), labels={"site": "roof"}))
    assert on_record(world).labels == {"site": "roof"}


async def test_settings_of_a_stack_that_is_gone_go_with_it(world: World) -> None:
    await world.apply(stack("alpha", adapter()))
    await world.apply(stack("beta", adapter("chat"), labels={"site": "roof"}, api_key=None), force=True)
    await world.destroy("beta")
    assert on_record(world) == EDGE
    assert [(one.cause, dict(one.after or {})) for one in world.told(events.CHANGED) if one.cause == "settings"] == [
        ("settings", {"fields": ["labels", "api_key"], "from": "alpha"})
    ]
    assert (await world.plan(stack("alpha", adapter()))).empty


async def test_settings_of_a_target_that_left_a_manifest_go_with_it(world: World) -> None:
    await world.apply(stack("alpha", adapter()))
    await world.apply(stack("beta", adapter("chat"), labels={"site": "roof"}), force=True)
    await world.apply(Declaration(stack="beta"))
    assert on_record(world) == EDGE


async def test_the_settings_that_the_others_declare_stay(world: World) -> None:
    await world.apply(stack("alpha", adapter()))
    await world.apply(stack("beta", adapter("chat")))
    await world.destroy("alpha")
    assert on_record(world) == EDGE
    assert not world.told(events.CHANGED)


async def test_of_two_applies_at_once_the_second_is_rejected(world: World) -> None:
    """It looked before the first one declared the target, so nothing was there to disagree with."""
    declare, first = world.store.declare, True

    def meanwhile(*args: Any, **named: Any) -> Any:
        nonlocal first
        if first:
            first = False
            world.store.declare = declare  # type: ignore[method-assign] # the other one goes through
            other = World()
            other.store = world.store
            (record,) = (replace(one, spec=EDGE.to_json()) for one in args[1])
            declare(replace(args[0], name="alpha"), [record], replace(args[2], id="other", stack="alpha"), [])
        return declare(*args, **named)

    world.store.declare = meanwhile  # type: ignore[method-assign] # right before it is written
    with pytest.raises(ConflictError, match="another command has changed target edge-1"):
        await world.apply(stack("beta", adapter("chat"), api_key=None))
    assert on_record(world) == EDGE
    assert [one.name for one in world.store.stacks()] == ["alpha"]
    assert world.edge.served == {}


async def test_no_value_of_a_setting_is_shown(world: World) -> None:
    await world.apply(stack("alpha", adapter()))
    with pytest.raises(ConflictError) as raised:
        await world.apply(stack("beta", headers={"x-key": "very-secret"}))
    assert "very-secret" not in f"{raised.value} {raised.value.hint} {raised.value.details}"
