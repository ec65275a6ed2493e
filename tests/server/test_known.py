"""What the workers are told of instances and nodes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from garrison.engines.llama_router import RouterModel
from garrison.gateway.link.messages import RouteValue, TargetValue
from garrison.gateway.requests.paths import LLAMA_ROUTER
from garrison.instances.live import Live
from garrison.instances.runner import Upstream
from garrison.instances.values.record import InstanceRecord
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import Condition, State
from garrison.nodes.node import Node, NodeView
from garrison.server.workers.declared import Declared
from garrison.server.workers.routes import InstanceValues, changes, instance_target, known

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MODELS = (
    RouterModel("one", "loaded"),
    RouterModel("org/two"),
    RouterModel("bad", "failed", reason="no memory"),
    RouterModel("w", "loading"),
)
STATES = {"r/one": "running", "r/org/two": "stopped", "r/bad": "failed", "r/w": "starting"}


def live(name: str, state: State = State.RUNNING, **fields: Any) -> Live:
    return Live(InstanceRecord(7, InstanceSpec(name=name, **fields), Condition(state, NOW), NOW, NOW))


ROUTER = live("r", engine="llama_cpp", preset_ini="[one]")


def values(*instances: Live) -> Sequence[tuple[TargetValue, RouteValue]]:
    return InstanceValues().of(instances, 0.0)


def listed(routes: Mapping[str, RouteValue]) -> list[str]:
    return [name for name, one in routes.items() if one.listed]


def test_a_router_has_no_model_of_its_own_and_a_route_for_each_that_is_known() -> None:
    found = known(values(ROUTER), [])
    assert listed(found.routes) == ["r"]
    told = known(values(ROUTER), [], models={"r": MODELS})
    assert listed(told.routes) == list(STATES)
    assert {name: one.facts["state"] for name, one in told.routes.items() if name != "r"} == STATES
    two = told.routes["r/org/two"]
    assert (two.targets, two.rest, two.models, two.nested) == (("instance:r",), "org/two", (), False)
    assert (two.instances, two.instance_ids) == (("r",), (7,)), "a key for the instance is one for its models"
    assert (two.facts["model"], two.facts["engine"]) == ("org/two", "llama_cpp")
    assert told.routes["r/bad"].facts["failure"] == "no memory"
    assert told.targets["instance:r"].engine == LLAMA_ROUTER
    first, last = changes(found, told, 1), changes(told, found, 2)
    assert first is not None
    assert last is not None
    assert {one.name for one in first.routes} == {"r", *STATES}
    assert set(last.gone_routes) == set(STATES)


def test_one_with_a_model_is_none() -> None:
    single = live("a", engine="llama_cpp", preset_ini="[one]", options={"model": "m"})
    assert instance_target(single).engine == "llama_cpp"


def test_a_declared_route_keeps_its_name() -> None:
    declared = RouteValue(name="r/one", targets=("target:edge",))
    found = known(values(ROUTER), [], Declared(routes={"r/one": declared}), models={"r": MODELS}).routes
    assert found["r/one"] == declared
    assert found["r/org/two"].rest == "org/two"
    own = RouteValue(name="r", targets=("target:edge",))
    hidden = known(values(ROUTER), [], Declared(routes={"r": own}), models={"r": MODELS}).routes
    assert hidden["r"] == own
    assert set(hidden) == {"r", "r/", *STATES}, "its models can still be asked for"


@pytest.mark.parametrize("models", [None, [], {}, "one", [1, {"id": None}]])
def test_an_instance_of_a_node_that_lists_no_models(models: Any) -> None:
    row = {"name": "far", "state": "running", "models": models}
    found = known([], [NodeView(Node("edge", "http://edge"), "reachable", instances=(row,))]).routes
    assert listed(found) == ["far"]


@pytest.mark.parametrize(
    ("options", "engine"), [({"backend_type": "vllm"}, "vllm"), ({}, None), ({"backend_type": 1}, None), ("x", None)]
)
def test_the_engine_of_an_instance_of_a_node_is_told_where_it_is_known(options: Any, engine: str | None) -> None:
    row = {"name": "far", "state": "running", "options": options}
    found = known([], [NodeView(Node("edge", "http://edge"), "reachable", instances=(row,))]).routes
    assert found["far"].facts.get("engine") == engine


def test_a_router_of_a_node_is_listed_as_it_was_seen_there() -> None:
    row = {"name": "r", "state": "running", "models": [one.to_json() for one in MODELS]}
    found = known([], [NodeView(Node("edge", "http://edge"), "reachable", instances=(row,))]).routes
    assert {name: one.facts["state"] for name, one in found.items() if one.listed} == STATES
    assert (found["r/one"].targets, found["r/one"].facts["node"]) == (("node:edge",), "edge")


def test_the_values_of_an_instance_are_made_again_only_when_it_changes() -> None:
    made, first, second = InstanceValues(), live("a"), live("b")
    before = made.of([first, second], 0.0)
    assert [route.name for _, route in before] == ["a", "b"]
    first.context = 4096
    after = made.of([first, second], 0.0)
    assert after[0][1].facts["max_model_len"] == 4096
    assert after[1][1] is before[1][1]
    assert made.of([second], 60.0)[0][1].facts["idle_timeout"] == 60
    assert made.of([], 0.0) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda one: setattr(one, "held", {"host": 1}),
        lambda one: setattr(one, "record", replace(one.record, condition=Condition(State.FAILED, NOW))),
        lambda one: setattr(one, "engine", Engine()),
    ],
)
def test_each_change_of_an_instance_is_told(change: Callable[[Live], None]) -> None:
    made, one = InstanceValues(), live("a")
    one.admits = True
    before = known(made.of([one], 0.0), [])
    assert changes(before, known(made.of([one], 0.0), []), 2) is None
    change(one)
    assert changes(before, known(made.of([one], 0.0), []), 2) is not None


def test_memory_that_an_instance_holds_is_told_when_it_grows() -> None:
    made, one = InstanceValues(), live("a")
    one.held = {"host": 1}
    before = made.of([one], 0.0)
    one.held["host"] = 2
    assert made.of([one], 0.0)[0][1].facts["memory"] == {"host": 2}
    assert before[0][1].facts["memory"] == {"host": 1}


class Engine:
    """An engine that answers."""

    upstream = Upstream("http://127.0.0.1:1", None, "m")
