"""Where adapters are loaded, by what is on record and what was seen; their routes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from garrison.fleet.values.causes import INTERRUPTED, RESTARTED, UNLOADED
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration, Policy
from garrison.fleet.values.instance import InstanceDeclaration
from garrison.fleet.values.route import RouteDeclaration, RouteEnd
from garrison.gateway.link.messages import RouteValue
from garrison.server.adapters.places import Known, Seen, adapter_places, held
from garrison.server.adapters.routes import adapter_routes, ends_to_load
from garrison.server.workers.declared import Declared, DeclaredStack, declared_ends, declared_routes
from garrison.server.workers.routes import known as all_known
from garrison.store.records import Key, Operation, Resource

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ONE, TWO = "1" * 64, "2" * 64
V1, V2 = "sql@111111111111", "sql@222222222222"


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def spec(digest: str = ONE, target: str = "qwen", **changes: Any) -> AdapterDeclaration:
    values: dict[str, Any] = {"label": "sql", "lora_name": "sql", "lora_path": "/sql", "versioned": True}
    return AdapterDeclaration(**(values | {"target": target, "digest": digest} | changes))


def version(digest: str, minutes: float = 0.0, operation: Operation = Operation.CREATED, **changes: Any) -> Resource:
    one = spec(digest)
    values: dict[str, Any] = {"label": "sql", "spec": one.to_json(), "parent": "base", "at": at(minutes)}
    values |= {"key": Key("qwen", ADAPTER_TYPE, one.served_name), "stack": "box", "served_path": f"/store/{digest}"}
    return Resource(operation=operation, **(values | changes))


def seen(minutes: float, *digests: str) -> Seen:
    return Seen(at(minutes), {spec(one).served_name: f"/store/{one}" for one in digests})


def declared(*specs: AdapterDeclaration, restore: bool = False, **more: Any) -> Declaration:
    policy = Policy(on_drift="restore" if restore else "report")
    return Declaration(stack="box", adapters=specs, policy=policy, **more)


def place(*resources: Resource, one: AdapterDeclaration | None = None, restore: bool = False, **known: Any) -> Any:
    facts = Known(declarations=(declared(one or spec(), restore=restore),), resources={"qwen": resources}, **known)
    return adapter_places(facts)["qwen", "sql"]


MODELS: dict[str, tuple[Any, str]] = {
    "on record": (place(version(ONE)), V1),
    "never loaded": (place(), ""),
    "lost": (place(version(ONE, operation=Operation.LOST)), ""),
    "seen since": (place(version(ONE), seen={"qwen": seen(1, ONE)}), V1),
    "seen to be gone since": (place(version(ONE), seen={"qwen": seen(1)}), ""),
    "loaded after it was seen to be absent": (place(version(ONE, 2), seen={"qwen": seen(1)}), V1),
    "seen from another path": (place(version(ONE), seen={"qwen": Seen(at(1), {V1: "/theirs"})}), ""),
    "before the engine was started": (place(version(ONE), since={"qwen": at(1)}), ""),
    "seen before the engine was started": (place(version(ONE), seen={"qwen": seen(1, ONE)}, since={"qwen": at(2)}), ""),
    "seen after the engine was woken": (place(version(ONE), seen={"qwen": seen(3, ONE)}, since={"qwen": at(2)}), V1),
    "the engine does not run": (place(version(ONE), since={"qwen": None}), ""),
    "an update that has not answered": (place(version(ONE), version(TWO, 1, cause=INTERRUPTED), one=spec(TWO)), V1),
    "an update that has answered": (place(version(ONE), version(TWO, 1), one=spec(TWO)), V2),
    "back to the version before": (place(version(ONE), version(TWO, 1), one=spec(ONE)), V1),
    "the newest, before the declared one is loaded": (place(version(ONE), version(TWO, 1), one=spec("3" * 64)), V2),
    "only one that was never probed": (place(version(ONE, cause=INTERRUPTED)), V1),
    "leaving": (place(version(ONE), leaving={("qwen", V1)}), ""),
    "leaving, and there is another": (place(version(ONE), version(TWO, 1), leaving={("qwen", V2)}), V1),
    "of another stack": (place(version(ONE, stack="other")), ""),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_requests_ask_for(name: str) -> None:
    found, model = MODELS[name]
    assert found.model == model


def test_why_it_is_not_loaded() -> None:
    lost = version(ONE, operation=Operation.LOST, cause=UNLOADED)
    assert "the policy is to report" in place(lost).reason
    assert place(lost, restore=True).reason == "", "the agent loads it again"
    assert place(replace(lost, cause=RESTARTED), since={"qwen": at(0)}).reason == ""
    assert "the policy" in place(replace(lost, cause=RESTARTED)).reason, "somebody else's server"
    assert place(replace(lost, cause=INTERRUPTED)).reason == ""
    assert place(away={"qwen": "connection refused"}).reason == "qwen cannot be asked: connection refused"
    assert place(version(ONE), leaving={("qwen", V1)}, away={"qwen": "x"}).reason == "", "for a moment"


def test_what_is_being_unloaded() -> None:
    one = place(version(ONE), version(TWO, 1), leaving={("qwen", V1), ("qwen", "stranger"), ("edge", V2)})
    assert (one.leaving, one.model) == ({V1}, V2)
    assert place(version(ONE)).leaving == frozenset()


def test_what_a_target_holds() -> None:
    facts = Known(resources={"qwen": [version(ONE), version(TWO, operation=Operation.LOST)]}, seen={"qwen": seen(-1)})
    assert held("qwen", facts) == {V1}
    strangers = replace(facts, seen={"qwen": Seen(at(1), {V1: f"/store/{ONE}", "theirs": "/x"})})
    assert held("qwen", strangers) == {V1, "theirs"}
    assert held("qwen", replace(strangers, since={"qwen": at(2)})) == set(), "the engine was started since"


# --- routes


def box(**more: Any) -> Declaration:
    instances = {name: InstanceDeclaration(name=name, model="m", engine="sim") for name in ("qwen", "other")}
    instances["away"] = InstanceDeclaration(name="away", model="m", engine="sim", node="n2")
    specs = tuple(spec(target=target) for target in ("qwen", "other", "away", "edge"))
    return declared(*specs, instances=instances, **more)


def routes(declaration: Declaration, **loaded: str) -> dict[str, RouteValue]:
    facts = Known(declarations=(declaration,))
    places = {one: replace(found, model=loaded.get(one[0], "")) for one, found in adapter_places(facts).items()}
    found = adapter_routes([declaration], places, here=(None, "me"), created={"box": 7})
    return {name: value for name, (value, _) in found.items()}


def test_routes_of_adapters() -> None:
    found = routes(box(), qwen=V1, away=V2, edge="sql")
    every = found["sql"]
    assert every.targets == ("instance:qwen", "instance:other", "node:n2", "target:edge")
    assert every.models == (V1, "", f"away/{V2}", "sql")
    assert every.adapters == ("sql",) * 4
    assert (every.listed, every.instances, every.owned_by, every.created) == (True, (), "box", 7)
    assert every.facts == {"state": "running"}
    one = found["qwen/sql"]
    assert (one.targets, one.models, one.instances, one.listed) == (("instance:qwen",), (V1,), ("qwen",), False)
    assert found["other/sql"].facts == {"state": "stopped"}
    assert set(found) == {"sql", "qwen/sql", "other/sql", "away/sql", "edge/sql"}


def test_a_declared_route_names_adapters_and_models() -> None:
    to = (RouteEnd(place="qwen", adapter="sql"), RouteEnd(place="other"), RouteEnd(place="edge", adapter="sql"))
    declaration = box(routes={"bot": RouteDeclaration(name="bot", to=to)})
    stack = DeclaredStack(declaration)
    places = adapter_places(Known(declarations=(declaration,)))
    places["edge", "sql"] = replace(places["edge", "sql"], model=V1)
    found = declared_routes([stack], here=(None, "me"), places=places)[0]["bot"]
    assert (found.models, found.adapters) == (("", "", V1), ("sql", "", "sql"))
    ends = declared_ends([stack])["bot"]
    assert ends == (("qwen", "sql"), ("other", ""), ("edge", "sql"))
    assert ends_to_load(found, ends, "instance:qwen", ()) == [("qwen", "sql"), ("edge", "sql")]
    assert ends_to_load(found, ends, "target:edge", ("instance:qwen",)) == [("edge", "sql")]
    pinned = RouteValue(name="bot", targets=found.targets, policy="pin")
    assert ends_to_load(pinned, ends, "instance:qwen", ()) == [("qwen", "sql")], "its order is the user's"


def test_the_order_of_names() -> None:
    def named(*names: str, **more: Any) -> dict[str, RouteValue]:
        return {name: RouteValue(name=name, targets=("t",), owned_by=str(more.get("by", "x")), **more.get("as_", {}))
                for name in names}  # fmt: skip

    given_ = Declared(
        routes=named("both", "t/sql", by="route"),
        own=named("t", "both", "named", by="target", as_={"nested": True}),
        adapters=named("t/sql", "t/other", by="place", as_={"listed": False})
        | named("named", "t/x", "a/b", by="adapter"),
    )
    found = {name: route.owned_by for name, route in all_known([], [], given_).routes.items()}
    assert found == {
        "both": "route", "both/": "target", "t/sql": "route", "t": "target", "named": "target", "t/other": "place",
        "a/b": "adapter",
    }, "an adapter called `t/x` would hide a model of the target `t`"  # fmt: skip
