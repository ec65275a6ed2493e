"""The models of routers: asked for in the background, loaded and unloaded. Over the twins."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from garrison.base.errors import InvalidError, NotFoundError, NotReadyError, UnreachableError
from garrison.instances.routers import Routers
from garrison.instances.values.state import State
from garrison.testing.llama_router import MemoryRouter, MemoryRouters

from .world import World, run


class Box:
    """A machine with the router `r`, which follows `server`.

    Attributes:
        told: the models and their states at each change that was reported.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = MemoryRouter({"one": "unloaded", "org/two": "unloaded"})
        self.routers = Routers(world.manager, MemoryRouters(lambda _: self.server), changed=self._changed)
        self.told: list[dict[str, str] | None] = []

    async def start(self) -> None:
        await self.world.create("r", engine="llama_cpp", preset_ini="[one]\n[org/two]\n")
        await self.world.create("single", engine="llama_cpp", options={"model": "m"})
        await self.world.create("other", engine="vllm", options={"model": "m"})
        self.world.manager.bus.listen(
            lambda _: self.routers.look(), wants=lambda event: event.kind == f"instance_{State.RUNNING}"
        )
        await self.routers.startup()

    def known(self) -> dict[str, str] | None:
        found = self.routers.models("r")
        return None if found is None else {one.id: one.status for one in found}

    def _changed(self) -> None:
        self.told.append(self.known())

    @property
    def calls(self) -> list[tuple[str, str, Any]]:
        return [one for one in self.server.requests if one[0] == "POST"]


def in_a_box(body: Callable[[Box], Awaitable[None]]) -> None:
    async def inside(world: World) -> None:
        box = Box(world)
        await box.start()
        await body(box)
        await box.routers.shutdown()

    run(World(idle=1e6), inside)


def test_the_models_of_a_router_are_known_while_it_runs() -> None:
    async def body(box: Box) -> None:
        await asyncio.sleep(60)
        assert (box.known(), box.server.requests) == (None, []), "one that does not run is not asked"
        await box.world.use("r")
        await asyncio.sleep(0.1)
        assert box.known() == {"one": "unloaded", "org/two": "unloaded"}
        assert list(box.routers.known()) == ["r"]
        box.server.models["one"] = "loaded"  # by a request
        await asyncio.sleep(11)
        assert box.known() == {"one": "loaded", "org/two": "unloaded"}
        assert box.told == [{"one": "unloaded", "org/two": "unloaded"}, {"one": "loaded", "org/two": "unloaded"}]
        await box.world.use("single")
        await box.world.manager.stop("r")
        assert (box.known(), box.routers.known()) == (None, {})
        asked = len(box.server.requests)
        await asyncio.sleep(60)
        assert len(box.server.requests) == asked

    in_a_box(body)


def test_what_another_process_of_it_said_does_not_count() -> None:
    async def body(box: Box) -> None:
        await box.world.use("r")
        await asyncio.sleep(0.1)
        box.server.down = True
        await box.world.manager.restart("r")
        await box.world.use("r")
        assert box.known() is None
        box.server.down, box.server.models = False, {"three": "unloaded"}
        await asyncio.sleep(11)
        assert box.known() == {"three": "unloaded"}

    in_a_box(body)


def test_one_that_does_not_answer_keeps_what_it_said_last() -> None:
    async def body(box: Box) -> None:
        await box.world.use("r")
        await asyncio.sleep(0.1)
        box.server.down = True
        await asyncio.sleep(30)
        assert box.known() == {"one": "unloaded", "org/two": "unloaded"}
        with pytest.raises(UnreachableError, match="instance r does not answer GET /models"):
            await box.routers.list("r")

    in_a_box(body)


def test_a_load_starts_the_router_and_is_followed_to_its_end() -> None:
    async def body(box: Box) -> None:
        box.server.loaded = "loading"
        answer = await box.routers.send("r", "load", {"model": "one"})
        assert (answer.status, box.world.state("r")) == (200, State.RUNNING)
        await asyncio.sleep(0.1)
        assert box.known() == {"one": "loading", "org/two": "unloaded"}
        await asyncio.sleep(3)
        box.server.models["one"] = "loaded"
        await asyncio.sleep(0.6)
        assert box.known() == {"one": "loaded", "org/two": "unloaded"}, "one that loads is asked often"
        asked = len(box.server.requests)
        await asyncio.sleep(9)
        assert len(box.server.requests) == asked, "and then no more"
        assert box.world.manager.get("r").leases == 0

    in_a_box(body)


def test_loading_and_unloading_twice_is_once() -> None:
    async def body(box: Box) -> None:
        await box.routers.unload("r", "one")
        assert (box.world.state("r"), box.calls) == (State.STOPPED, []), "nothing is loaded in what does not run"
        for change in (box.routers.load, box.routers.load, box.routers.unload, box.routers.unload):
            await change("r", "one")
        assert [path for _, path, _ in box.calls] == ["/models/load"] * 2 + ["/models/unload"] * 2
        for change in (box.routers.load, box.routers.unload):
            with pytest.raises(NotFoundError, match="r has no model 'three'"):
                await change("r", "three")

    in_a_box(body)


def test_a_load_that_is_refused() -> None:
    async def body(box: Box) -> None:
        await box.world.use("r")
        box.server.refuses = "out of slots"
        with pytest.raises(InvalidError, match="r does not load 'one': it answered 400"):
            await box.routers.load("r", "one")
        box.server.models["one"] = "sleeping"
        await box.routers.load("r", "one")
        with pytest.raises(InvalidError, match="r does not unload 'one'"):
            await box.routers.unload("r", "one")

    in_a_box(body)


def test_who_is_asked() -> None:
    async def body(box: Box) -> None:
        with pytest.raises(NotReadyError, match="instance r is stopped"):
            await box.routers.list("r")
        for call in (box.routers.list("none"), box.routers.send("none", "load", {})):
            with pytest.raises(NotFoundError):
                await call
        for call in (box.routers.list("other"), box.routers.send("other", "load", {})):
            with pytest.raises(InvalidError, match="instance other runs vllm"):
                await call
        assert box.world.runner.starts == []
        await box.world.use("single")
        assert (await box.routers.list("single")).status == 200, "llama-server has the list in any case"

    in_a_box(body)
