"""Names of requests, and what keys and stacks make of them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from served_api import ServedApi

from garrison.access.authorize import Action, ActionKind, authorize
from garrison.access.identity import Caller, Identity
from garrison.access.permissions import Grants, Permissions
from garrison.fleet.instance_dialer import NotRunning
from garrison.fleet.values.target import InstancePlace
from garrison.instances.values.spec import InstanceSpec
from garrison.server.activation import InstanceActivator
from garrison.server.stack_instances import ServedInstances


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[ServedApi]:
    made = await ServedApi(tmp_path).startup()
    await made.instances.create(InstanceSpec(name="a", engine="sim", options={"model": "m"}))
    yield made
    await made.shutdown()


async def test_a_key_that_is_limited_to_an_adapter(served: ServedApi) -> None:
    activator = InstanceActivator(served.instances, served.routers)
    only = Permissions(only=Grants(models=frozenset({"a/sql"})))
    key = Identity(caller=Caller.KEY, name="k", permissions=only, key_id=1)

    def allowed(model: str) -> bool:
        found = activator.find(model)
        assert found is not None
        return bool(authorize(key, Action(ActionKind.INFER, found.id, found.instances[0], found.instance_id)))

    assert {name: allowed(name) for name in ("a/sql", "a", "a/other")} == {"a/sql": True, "a": False, "a/other": False}
    assert activator.find("b") is None


async def test_a_target_on_a_node_that_nobody_knows_is_unknown(served: ServedApi) -> None:
    addresses = ServedInstances(served.instances, served.nodes, served.settings)
    found = await addresses.find(InstancePlace("a", "nowhere"))
    assert isinstance(found, NotRunning)
    assert not found.known
    assert await addresses.find(InstancePlace("a")) == NotRunning("instance a is stopped")
    assert await addresses.find(InstancePlace("a", "main")) == NotRunning("instance a is stopped")


async def test_the_models_of_a_router(served: ServedApi) -> None:
    activator = InstanceActivator(served.instances, models=served.routers.models)
    await served.instances.create(InstanceSpec(name="r", engine="llama_cpp", preset_ini="[one]"))
    assert [one.id for one in activator.served()] == ["a", "r/one"]
    hold = await activator.acquire("r/org/two")
    assert hold.upstream.model == "org/two"
    found = activator.find("r/one")
    assert found is not None
    assert (found.id, found.instances) == ("r/one", ("r",))
    hold.release()
