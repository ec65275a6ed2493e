"""Which route a name finds, and which keys may use it."""

import pytest
from lab_keys import key, told_keys

from garrison.access.permissions import Grants
from garrison.base.clock import SystemClock
from garrison.base.errors import DeniedError
from garrison.gateway.link.messages import RouteValue, Tables, TargetValue
from garrison.gateway.worker.heads.head_facts import HeadFacts
from garrison.gateway.worker.table.callers import Callers
from garrison.gateway.worker.table.targets import RouteTable

HEAD = HeadFacts(b"GET", b"/", [(b"authorization", b"Bearer k")])
TARGETS = [TargetValue(id=f"instance:{name}", url=f"http://127.0.0.1:{port}") for name, port in (("a", 1), ("b", 2))]


def table(*routes: RouteValue) -> RouteTable:
    made = RouteTable()
    made.apply(Tables(version=1, whole=True, targets=TARGETS, routes=list(routes)))
    return made


def own(name: str, told: str = "") -> RouteValue:
    """The route of an instance."""
    return RouteValue(name=told or name, targets=(f"instance:{name}",), nested=True, instances=(name,))


def found(made: RouteTable, model: str) -> tuple[str, str] | None:
    route = made.find(model)
    return None if route is None else (route[0].ends[0].target.id, route[1])


def test_what_is_beneath_a_name_is_the_instance_although_a_route_has_the_name() -> None:
    made = table(RouteValue(name="a", targets=("instance:b",)), own("a", "a/"), own("b"))
    assert found(made, "a") == ("instance:b", "")
    assert found(made, "a/sql") == ("instance:a", "sql")
    assert found(made, "b/sql") == ("instance:b", "sql")
    assert found(made, "a/") is None
    assert list(made.routes) == ["a", "b"], "it is listed once"
    made.apply(Tables(version=2, routes=[own("a")], gone_routes=["a/"]))
    assert found(made, "a") == ("instance:a", "")
    assert found(made, "a/sql") == ("instance:a", "sql")


def test_the_name_of_a_route_of_a_slash_comes_first() -> None:
    made = table(RouteValue(name="a/sql", targets=("instance:b",)), own("a"))
    assert found(made, "a/sql") == ("instance:b", "")
    assert found(made, "a/other") == ("instance:a", "other")


def test_a_target_that_comes_back_is_found_beneath_a_name_too() -> None:
    made = table(RouteValue(name="a", targets=("instance:b",)), own("a", "a/"))
    made.apply(Tables(version=2, gone_targets=["instance:a"]))
    assert made.find("a/sql")[0].ends == ()  # type: ignore[index]  # it is found
    made.apply(Tables(version=3, targets=TARGETS))
    assert found(made, "a/sql") == ("instance:a", "sql")


@pytest.mark.parametrize(
    ("only", "allowed"),
    [
        (Grants(instance_ids=frozenset({7, 8})), True),
        (Grants(instance_ids=frozenset({7})), False),
        (Grants(instance_ids=frozenset({7}), instances=frozenset({"b"})), True),
        (Grants(instances=frozenset({"a", "b"})), True),
        (Grants(instance_ids=frozenset({9})), False),
        (Grants(models=frozenset({"r"})), True),
        (Grants(models=frozenset({"alias"})), False),
    ],
)
def test_a_key_for_instances_by_their_ids(only: Grants, allowed: bool) -> None:
    callers = Callers(SystemClock())
    callers.set_keys(told_keys(key("k", only=only)))
    who = callers.identify(HEAD)
    route = RouteValue(name="r", targets=("instance:a", "instance:b"), instances=("a", "b"), instance_ids=(7, 8))
    assert callers.may_use(who, route) is allowed
    if not allowed:
        with pytest.raises(DeniedError):
            callers.require(who, route)


def test_a_key_for_ids_may_not_use_an_instance_of_which_no_id_is_known() -> None:
    callers = Callers(SystemClock())
    callers.set_keys(told_keys(key("k", only=Grants(instance_ids=frozenset({7})))))
    who = callers.identify(HEAD)
    for ids in ((7, None), (7,), ()):
        assert not callers.may_use(who, RouteValue(name="r", targets=(), instances=("a", "b"), instance_ids=ids))
