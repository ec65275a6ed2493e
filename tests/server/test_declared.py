"""What stacks declare, as values for the gateway."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from garrison.fleet.context import Fleet
from garrison.fleet.manifest.route_model import HashModel, PrefixModel, RoutePolicy, SpillModel, StickyModel
from garrison.fleet.values.declaration import Declaration
from garrison.gateway.choose.policy import POLICIES, policy_of
from garrison.gateway.link.messages import RouteValue, TargetValue
from garrison.gateway.link.route_settings import AffinityValue, FilterValue, LimitsValue, QueueValue, TimeoutsValue
from garrison.instances.live import Live
from garrison.instances.values.record import InstanceRecord
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import Condition, State
from garrison.nodes.node import Node, NodeView
from garrison.server.workers.declared import (
    Declared,
    DeclaredStack,
    FleetTarget,
    declared_routes,
    fleet_target,
    policy_name,
    why_not_routable,
)
from garrison.server.workers.declared_routes import DeclaredRoutes
from garrison.server.workers.routes import InstanceValues, changes, known
from garrison.store.records import CommandRecord, Event, StackRecord, TargetRecord
from garrison.testing.artifacts import MemoryArtifacts
from garrison.testing.store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EDGE = {"base_url": "http://edge:8000", "base_model": "acme/edge"}


def body(
    routes: dict[str, Any], targets: dict[str, Any] | None = None, stack: str = "box", **instances: Any
) -> dict[str, Any]:
    return {
        "stack": stack, "targets": targets or {}, "adapters": [],
        "models": [], "policy": {"interval": 30.0}, "hooks": [],
        "instances": {name: {"model": "m", "engine": "sim"} | more for name, more in instances.items()},
        "routes": routes,
    }  # fmt: skip


def routes_of(routes: dict[str, Any], **more: Any) -> Any:
    stack = DeclaredStack(Declaration.from_json(body(routes, **more)), 7)
    return declared_routes([stack], here=(None, "me"))[0]


def test_every_policy_of_a_manifest_is_one_of_the_gateway() -> None:
    named = {one: policy_name(one) for one in get_args(RoutePolicy)}
    assert set(named.values()) == set(POLICIES), "none is left out, and none stands for the default by mistake"
    assert {name for name, policy in named.items() if name != policy} == {"random", "failover"}
    assert policy_name("of a later version") == "least-outstanding"


def test_ends_of_every_kind() -> None:
    to = ["here", "mine/sql", "away", "away/sql", "edge", "edge/sql"]
    found = routes_of({"r": {"to": to}}, here={}, mine={"node": "me"}, away={"node": "n2"}, targets={"edge": EDGE})["r"]
    assert found.targets == ("instance:here", "instance:mine", "node:n2", "node:n2", "target:edge", "target:edge")
    assert found.models == ("", "sql", "away", "away/sql", "", "sql")
    assert (found.owned_by, found.created, found.weights) == ("box", 7, ())


def test_weights_stand_by_the_ends() -> None:
    found = routes_of({"r": {"to": ["a", "b"], "weights": {"b": 3.0}, "policy": "random"}}, a={}, b={})["r"]
    assert (found.weights, found.policy) == ((1.0, 3.0), "power-of-two")


def test_instances_stand_for_permissions_only_if_nothing_else_is_behind_a_route() -> None:
    found = routes_of({"i": {"to": ["a", "a/x", "b"]}, "t": {"to": ["a", "edge"]}}, a={}, b={}, targets={"edge": EDGE})
    assert (found["i"].instances, found["t"].instances) == (("a", "b"), ())


def test_the_first_stack_has_the_name() -> None:
    stacks = [
        DeclaredStack(Declaration.from_json(body({"r": {"to": "a"}}, stack=name, a={}))) for name in ("one", "two")
    ]
    found, refused = declared_routes(stacks, here=(None,))
    assert found["r"].owned_by == "one"
    assert refused == [("r", "two", "one")]


def target(**spec: Any) -> FleetTarget:
    declared = Declaration.from_json(body({}, {"edge": EDGE | spec})).targets["edge"]
    return FleetTarget(declared, "seen/model", "box", 5)


def test_a_target_and_its_own_route() -> None:
    value, route = fleet_target(target(), "k")
    assert value == TargetValue(
        id="target:edge", url="http://edge:8000", key="k", model="acme/edge", foreign=True, counted=False
    )
    assert (route.name, route.targets, route.nested, route.instances) == ("edge", ("target:edge",), True, ())
    assert fleet_target(target(base_model=None), None)[0].model == "seen/model"
    assert fleet_target(target(), None, cold=True)[0].url is None


@pytest.mark.parametrize("spec", [{"headers": {"x": "y"}}, {"tls": {"ca": "ca.pem"}}, {"tls": {"insecure": True}}])
def test_what_the_gateway_does_not_send(spec: dict[str, Any]) -> None:
    assert why_not_routable(target(**spec).spec)
    assert why_not_routable(target().spec) == ""


def test_routes_come_first_and_targets_last() -> None:
    declared = routes_of({"r": {"to": "edge"}, "other": {"to": "edge"}}, targets={"edge": EDGE})
    value, own = fleet_target(target(), None)
    found = known([], [], Declared(declared, {value.id: value}, {"edge": own, "other": own}))
    assert (found.routes["other"], found.routes["edge"]) == (declared["other"], own)
    assert found.targets == {value.id: value}
    told = changes(known([], []), found, 2)
    assert told is not None
    assert {one.name for one in told.routes} == {"r", "other", "edge"}


def values(*instances: Live) -> Sequence[tuple[TargetValue, RouteValue]]:
    return InstanceValues().of(instances, 0.0)


def live(name: str, number: int) -> Live:
    return Live(InstanceRecord(number, InstanceSpec(name=name), Condition(State.STOPPED, NOW), NOW, NOW))


def test_what_is_beneath_the_name_of_a_route_is_still_the_instance() -> None:
    declared = routes_of({"a": {"to": "b"}, "r": {"to": "b", "aliases": {"b": {}}}}, a={}, b={})
    node = NodeView(Node(name="n", address="http://n:1"), instances=({"name": "r"}, {"name": "away"}))
    value, own = fleet_target(target(), None)
    found = known(
        values(live("a", 1), live("b", 2)), [node], Declared(declared, {value.id: value}, {"edge": own, "a": own})
    )
    assert {name: one.targets for name, one in found.routes.items()} == {
        "a": ("instance:b",), "r": ("instance:b",), "a/": ("instance:a",), "b/": ("instance:b",), "r/": ("node:n",),
        "away": ("node:n",), "edge": ("target:edge",), "n": ("node:n",),
    }  # fmt: skip


def test_ids_stand_by_the_instances_that_are_behind_a_route() -> None:
    declared = routes_of({"r": {"to": ["a", "away", "b"]}}, a={}, b={}, away={"node": "n2"})
    found = known(values(live("a", 1), live("b", 2), live("away", 3)), [], Declared(declared))
    assert found.routes["r"].instances == ("a", "away", "b")
    assert found.routes["r"].instance_ids == (1, None, 2), "that of another node is not the one here of its name"


def test_what_a_manifest_says_beside_targets() -> None:
    more = {
        "policy": "hash",
        "hash": {"header": "X-User", "by": ["user"], "bound": 2.0},
        "set": {"a": 1, "b": None},
        "strip": ["c"],
        "aliases": {"r:x": {"set": {"a": [2], "d": "é"}, "strip": ["c", "e"]}, "r:y": {}},
        "limits": {"concurrent": 3, "of a later version": 1},
        "queue": {"busy": 2.0},
        "timeouts": {"whole": 9.0},
    }
    found = routes_of({"r": {"to": ["a", "b"], **more}}, a={}, b={})["r"]
    assert (found.policy, found.options) == ("hash", {"bound": 2.0})
    assert found.affinity == AffinityValue(header="X-User", by=("user",))
    assert found.aliases == ("r:x", "r:y")
    assert found.filters == {
        "r": FilterValue(set={"a": "1", "b": "null"}, strip=("c",)),
        "r:x": FilterValue(set={"a": "[2]", "b": "null", "d": '"é"'}, strip=("c", "e")),
        "r:y": FilterValue(set={"a": "1", "b": "null"}, strip=("c",)),
    }
    assert found.limits == LimitsValue(concurrent=3)
    assert found.queue == QueueValue(busy=2.0)
    assert found.timeouts == TimeoutsValue(whole=9.0)
    plain = routes_of({"r": {"to": "a"}}, a={})["r"]
    assert (plain.options, plain.affinity, plain.filters, plain.limits) == ({}, None, {}, None)


def test_every_option_of_a_policy_is_one_that_the_gateway_takes() -> None:
    for model in (HashModel, PrefixModel, StickyModel, SpillModel):
        policy = model.__name__.removesuffix("Model").lower()
        numbers: dict[str, Any] = {key: 2 for key in model.model_fields if key not in ("header", "by", "prompt_bytes")}
        if "bound" in numbers:
            numbers["bound"] = 2.0
        found = routes_of({"r": {"to": ["a", "b"], "policy": policy, policy: numbers}}, a={}, b={})["r"]
        assert found.options == numbers
        policy_of(policy, **found.options)
    later = routes_of({"r": {"to": "a", "policy": "spill", "spill": {"limit": 2, "later": 1}}}, a={})["r"]
    assert later.options == {}


def test_an_alias_belongs_to_the_first_stack_that_has_the_name() -> None:
    first = body({"r": {"to": "a", "aliases": {"x": {}}}}, stack="one", a={})
    second = body({"x": {"to": "a"}, "s": {"to": "a", "aliases": {"r": {}, "y": {}}}}, stack="two", a={})
    stacks = [DeclaredStack(Declaration.from_json(one)) for one in (first, second)]
    found, refused = declared_routes(stacks, here=(None,))
    assert {name: one.aliases for name, one in found.items()} == {"r": ("x",), "s": ("y",)}
    assert refused == [("x", "two", "one"), ("r", "two", "one")]


class Stage:
    """The store of a fleet, and what follows it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.fleet = Fleet(store=self.store, dialer=None, artifacts=MemoryArtifacts())  # type: ignore[arg-type]  # unused
        self.routes = DeclaredRoutes(self.fleet, "me")
        self.told = 0
        self.routes.changed = self._changed

    def _changed(self) -> None:
        self.told += 1

    def declare(self, routes: dict[str, Any], stack: str = "box", **targets: Any) -> None:
        records = [TargetRecord(name=name, spec=EDGE | spec, declared_at=NOW) for name, spec in targets.items()]
        specs = {one.name: one.spec for one in records}
        self.store.declare(
            StackRecord(name=stack, declaration=body(routes, specs, stack, a={}), at=NOW), records,
            CommandRecord(id=f"c{self.store.revision()}", stack=stack, kind="apply", started_at=NOW, by="me"), [],
        )  # fmt: skip


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.routes.shutdown()
    made.fleet.close()


async def test_what_was_applied_is_known_when_somebody_asks(stage: Stage) -> None:
    stage.declare({"r": {"to": "a"}})
    await stage.routes.startup()
    assert set(stage.routes.now.routes) == {"r"}
    stage.declare({"s": {"to": "edge"}}, edge={})
    await stage.routes.fresh()
    assert set(stage.routes.now.routes) == {"s"}
    assert stage.routes.now.targets["target:edge"].url == "http://edge:8000"
    told = stage.told
    await asyncio.gather(*(stage.routes.fresh() for _ in range(50)))
    assert stage.told == told, "nothing has changed"


async def test_what_is_applied_is_told_without_being_asked(stage: Stage) -> None:
    await stage.routes.startup()
    stage.declare({"r": {"to": "a"}})
    await stage.fleet.db(stage.store.add_events, [Event(at=NOW, kind="applied", stack="box")])
    async with asyncio.timeout(5):
        while "r" not in stage.routes.now.routes:
            await asyncio.sleep(0.01)
    assert stage.told == 1


async def test_what_was_read_without_telling_anybody_is_told_later(stage: Stage) -> None:
    stage.declare({"r": {"to": "a"}})
    await stage.routes.startup()
    told = stage.told
    stage.declare({"s": {"to": "a"}})
    await stage.routes.read_again()
    stage.routes.follow_engines()
    assert (set(stage.routes.now.routes), stage.told) == ({"s"}, told)
    stage.routes.refresh()
    assert stage.told == told + 1


async def test_a_key_is_read_and_its_failure_is_told(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_KEY", "secret")
    key = {"api_key": {"file": str(tmp_path / "absent")}}
    stage.declare({}, good={"api_key": {"env": "EDGE_KEY"}}, bad={"base_url": "http://b:1"} | key)
    await stage.routes.startup()
    now = stage.routes.now
    assert now.targets["target:good"].key == "secret"
    assert now.targets["target:bad"].url is None
    assert "absent cannot be read" in now.reasons["target:bad"]
    assert set(now.own) == {"good", "bad"}


async def test_a_slow_key_holds_up_nothing_else(stage: Stage) -> None:
    slow = {"api_key": {"command": ["sleep", "5"]}, "base_url": "http://b:1"}
    stage.declare({"r": {"to": "a"}}, edge={}, slow=slow)
    async with asyncio.timeout(2):
        await stage.routes.startup()
    assert set(stage.routes.now.routes) == {"r"}
    assert stage.routes.now.targets["target:edge"].url is not None
    assert stage.routes.now.reasons == {"target:slow": "its key is being read"}


async def test_a_stack_that_ends_is_not_answered(stage: Stage) -> None:
    stage.declare({"r": {"to": "edge"}}, edge={})
    await stage.routes.startup()
    stage.store.drop_stack("box")
    await stage.routes.fresh()
    assert stage.routes.now == Declared()
