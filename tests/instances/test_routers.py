"""The models of routers: asked for in the background, loaded and unloaded. Over the twins."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from garrison.base.errors import EngineDiedError, InvalidError, NotFoundError, NotReadyError, UnreachableError
from garrison.instances.routers import Routers
from garrison.instances.values.state import State
from garrison.testing.llama_router import MemoryRouter, MemoryRouters

from .world import World, run


class Box:
    """A machine with the router `r`, which follows `server`.

    Attributes:
        told: the models and their states at each change that was reported.
        log: of the router.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = MemoryRouter({"one": "unloaded", "org/two": "unloaded"})
        self.routers = Routers(world.manager, MemoryRouters(lambda _: self.server), self._read, changed=self._changed)
        self.log: list[str] = []
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

    async def _read(self, name: str) -> list[str]:
        assert name == "r"
        return self.log

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


UNLOADED = {"one": "unloaded", "org/two": "unloaded"}


def test_the_models_of_a_router_are_known_and_followed_while_it_runs() -> None:
    async def body(box: Box) -> None:
        box.server.models["cached"] = "unloaded"
        await asyncio.sleep(60)
        assert (box.known(), box.server.requests) == (UNLOADED, []), "one that does not run is not asked"
        await box.world.use("r")
        await asyncio.sleep(0.1)
        assert box.known() == UNLOADED | {"cached": "unloaded"}
        assert list(box.routers.known()) == ["r"]
        box.server.models["one"] = "loaded"  # by a request
        await asyncio.sleep(11)
        assert box.known() == {"one": "loaded", "org/two": "unloaded", "cached": "unloaded"}
        assert [told and told["one"] for told in box.told] == ["unloaded", "loaded"]
        await box.world.use("single")
        await box.world.manager.stop("r")
        assert box.known() == UNLOADED
        asked = len(box.server.requests)
        await asyncio.sleep(60)
        assert len(box.server.requests) == asked
        assert box.routers.models("single") is None

    in_a_box(body)


def test_what_another_process_of_it_said_does_not_count() -> None:
    async def body(box: Box) -> None:
        box.server.models["one"] = "loaded"
        await box.world.use("r")
        await asyncio.sleep(0.1)
        box.server.down = True
        await box.world.manager.restart("r")
        await box.world.use("r")
        assert box.known() == UNLOADED
        box.server.down, box.server.models = False, {"three": "unloaded"}
        await asyncio.sleep(11)
        assert box.known() == {"three": "unloaded"}

    in_a_box(body)


def test_one_that_does_not_answer_keeps_what_it_said_last() -> None:
    async def body(box: Box) -> None:
        box.server.models["one"] = "loaded"
        await box.world.use("r")
        await asyncio.sleep(0.1)
        box.server.page = b"<html>"
        await asyncio.sleep(30)
        with pytest.raises(UnreachableError, match="answers GET /models with 200 and no list of models"):
            await box.routers.list("r")
        box.server.down = True
        await asyncio.sleep(30)
        assert box.known() == UNLOADED | {"one": "loaded"}
        with pytest.raises(UnreachableError, match="instance r does not answer GET /models"):
            await box.routers.list("r")

    in_a_box(body)


def test_a_load_starts_the_router_and_is_followed_to_its_end() -> None:
    async def body(box: Box) -> None:
        box.server.loaded = "loading"
        await box.routers.load("r", "one")
        assert box.world.state("r") is State.RUNNING
        await asyncio.sleep(0.1)
        assert box.known() == UNLOADED | {"one": "loading"}
        await asyncio.sleep(3)
        box.server.models["one"] = "loaded"
        await asyncio.sleep(0.6)
        assert box.known() == UNLOADED | {"one": "loaded"}, "one that loads is asked often"
        asked = len(box.server.requests)
        await asyncio.sleep(9)
        assert len(box.server.requests) == asked, "and then no more"
        assert box.world.manager.get("r").leases == 0

    in_a_box(body)


def test_two_callers_that_load_one_model_start_one_router_and_one_load() -> None:
    async def body(box: Box) -> None:
        box.server.loaded = "loading"
        loads = asyncio.gather(box.routers.load("r", "one"), box.routers.load("r", "one"))
        await asyncio.sleep(1.5)
        box.server.models["one"] = "loaded"
        await loads
        assert len(box.world.runner.starts) == 1
        assert box.server.loads == ["one"]
        assert box.known() == UNLOADED | {"one": "loaded"}

    in_a_box(body)


def test_loading_and_unloading_twice_is_once() -> None:
    async def body(box: Box) -> None:
        await box.routers.unload("r", "one")
        assert (box.world.state("r"), box.calls) == (State.STOPPED, []), "nothing is loaded in what does not run"
        for change in (box.routers.load, box.routers.load, box.routers.unload, box.routers.unload):
            await change("r", "one")
        assert [path for _, path, _ in box.calls] == ["/models/load"] * 2 + ["/models/unload"] * 2

    in_a_box(body)


def test_a_model_that_it_does_not_have() -> None:
    async def body(box: Box) -> None:
        await box.world.use("r")
        for change in (box.routers.load, box.routers.unload):
            with pytest.raises(NotFoundError, match="r has no model 'three'") as raised:
                await change("r", "three")
            assert raised.value.hint == "It has one, org/two."
        assert box.world.state("r") is State.RUNNING

    in_a_box(body)


FAILED_LOG = """\
srv  load: spawning server instance with name=one on port 41001
[41001] failed to open GGUF file '/m/old.gguf' (No such file or directory)
srv  load: spawning server instance with name=org/two on port 41002
srv  load: spawning server instance with name=one on port 41003
[41002] unknown model architecture: 'other'
[41003] failed to open GGUF file '/m/one.gguf' (No such file or directory)
"""


def test_a_load_that_fails_tells_the_cause() -> None:
    async def body(box: Box) -> None:
        box.server.loaded = "failed"
        with pytest.raises(EngineDiedError, match=r"r cannot load 'one': it failed, its process exited with 1"):
            await box.routers.load("r", "one")
        box.log = FAILED_LOG.splitlines()
        with pytest.raises(EngineDiedError, match=r"r cannot load 'one': there is no model at /m/one\.gguf"):
            await box.routers.load("r", "one")
        entry = (await box.routers.list("r"))["data"][0]
        assert entry["status"]["error"] == "there is no model at /m/one.gguf"
        assert entry["status"]["args"] == ["llama-server"]
        await asyncio.sleep(11)
        known = box.routers.models("r") or ()
        assert [(one.id, one.reason) for one in known if one.reason] == [("one", "there is no model at /m/one.gguf")]
        assert box.world.state("r") is State.RUNNING, "its other models go on"

    in_a_box(body)


def test_a_load_that_is_refused() -> None:
    async def body(box: Box) -> None:
        await box.world.use("r")
        box.server.refuses = "model limit reached, try again later"
        with pytest.raises(InvalidError, match="r does not load 'one': model limit reached, try again later"):
            await box.routers.load("r", "one")
        box.server.models["one"] = "sleeping"
        await box.routers.load("r", "one")
        with pytest.raises(InvalidError, match="r does not unload 'one'"):
            await box.routers.unload("r", "one")

    in_a_box(body)


def test_the_next_server_adopts_it_and_knows_its_models() -> None:
    async def body(box: Box) -> None:
        box.server.models["one"] = "loaded"
        await box.world.use("r")
        pid = box.world.runner.alive["r"].pid
        await box.routers.shutdown()
        await box.world.manager.shutdown()
        await box.world.server()
        box.routers = Routers(box.world.manager, MemoryRouters(lambda _: box.server), box._read)
        await box.routers.startup()
        await asyncio.sleep(0.1)
        assert (box.world.runner.alive["r"].pid, box.world.state("r")) == (pid, State.RUNNING)
        assert box.known() == UNLOADED | {"one": "loaded"}
        assert box.calls == [], "nothing is loaded or unloaded for that"
        await box.routers.unload("r", "one")
        assert box.server.models["one"] == "unloaded"

    in_a_box(body)


def test_who_is_asked() -> None:
    async def body(box: Box) -> None:
        assert [one["id"] for one in (await box.routers.list("r"))["data"]] == ["one", "org/two"]
        await box.world.create("bare", engine="llama_cpp", options={"models_dir": "/m"})
        with pytest.raises(NotReadyError, match="instance bare is stopped"):
            await box.routers.list("bare")
        for call in (box.routers.list("none"), box.routers.load("none", "m"), box.routers.unload("none", "m")):
            with pytest.raises(NotFoundError):
                await call
        for call in (box.routers.list("other"), box.routers.load("other", "m"), box.routers.unload("other", "m")):
            with pytest.raises(InvalidError, match="instance other runs vllm"):
                await call
        with pytest.raises(InvalidError, match="instance single has one model"):
            await box.routers.load("single", "m")
        assert box.world.runner.starts == []
        await box.world.use("single")
        assert (await box.routers.list("single"))["object"] == "list", "llama-server has the list in any case"

    in_a_box(body)


def test_a_round_that_fails_unexpectedly_is_not_the_last() -> None:
    async def body(box: Box) -> None:
        read = box.routers._read_log

        async def broken(_name: str) -> list[str]:
            raise PermissionError(13, "Permission denied")

        box.routers._read_log = broken
        box.server.models["one"] = "failed"
        await box.world.use("r")
        await asyncio.sleep(0.1)
        assert box.known() == UNLOADED
        box.routers._read_log = read
        await asyncio.sleep(11)
        assert box.known() == UNLOADED | {"one": "failed"}

    in_a_box(body)
