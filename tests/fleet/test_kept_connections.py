"""One connection per target between the looks of an agent: when it is used again, and that none is left."""

import asyncio
import gc
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleet_world import World
from served import Certify, StartRaw, StartSim

from garrison.fleet.context import Fleet
from garrison.fleet.observe.kept_connections import lasting_observer
from garrison.fleet.observe.observer import Look
from garrison.fleet.values.target import TargetSpec
from garrison.net.client import HttpDialer
from garrison.net.endpoint import Tls
from garrison.net.pool import Pool
from garrison.testing.artifacts import MemoryArtifacts
from garrison.testing.store import MemoryStore

MODELS = b'{"object": "list", "data": [{"id": "acme/tiny", "object": "model", "root": "acme/tiny", "parent": null}]}'
LIST = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(MODELS), MODELS)
CLOSING = LIST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)


@pytest.fixture
def fleet() -> Any:
    made = Fleet(store=MemoryStore(), dialer=HttpDialer(), artifacts=MemoryArtifacts())
    yield made
    made.close()


def spec(url: str, name: str = "edge", **fields: Any) -> TargetSpec:
    return TargetSpec(name=name, base_url=url, **fields)


def pool_of(observer: Any) -> Pool:
    pool = observer._dialer.pool
    assert isinstance(pool, Pool)
    return pool


@pytest.mark.system
async def test_looks_share_a_connection(fleet: Fleet, start_sim: StartSim) -> None:
    sim = await start_sim()
    with lasting_observer(fleet) as observer:
        for _ in range(5):
            assert (await observer.look(Look(target=spec(sim.url), probe=True))).known
        assert (sim.accepted_connections, sim.open_connections) == (1, 1)
        async with fleet.dialer.open(spec(sim.url)) as connection:  # what acts on a target shares nothing
            await connection.request("GET", "/v1/models", timeout=5)
        assert sim.accepted_connections == 2
    async with asyncio.timeout(5):
        while sim.open_connections:
            await asyncio.sleep(0.01)


@pytest.mark.system
async def test_a_restart_between_two_looks_costs_a_connection_and_no_sighting(
    fleet: Fleet, start_sim: StartSim
) -> None:
    sim = await start_sim()
    with lasting_observer(fleet) as observer:
        for number in range(1, 4):
            assert (await observer.look(Look(target=spec(sim.url)))).known
            assert sim.accepted_connections == number
            sim.restart()


@pytest.mark.system
@pytest.mark.parametrize(("answers", "connections"), [((LIST, None), 2), ((CLOSING, LIST), 3), ((LIST,), 3)])
async def test_servers_that_do_not_keep_them(
    fleet: Fleet, start_raw: StartRaw, answers: tuple[bytes | None, ...], connections: int
) -> None:
    """Closed instead of an answer, announced in the answer, or after it."""
    server = await start_raw(*answers)
    with lasting_observer(fleet) as observer:
        for _ in range(3 if None not in answers else 2):
            assert (await observer.look(Look(target=spec(server.url)))).known
            await asyncio.sleep(0.02)
    assert server.connections == connections


@pytest.mark.system
async def test_one_per_server_and_none_after_a_change(fleet: Fleet, start_sim: StartSim) -> None:
    sim = await start_sim()
    first = spec(sim.url)
    with lasting_observer(fleet) as observer:
        await observer.observe([Look(target=spec(sim.url, f"t{at}")) for at in range(8)])
        assert len(pool_of(observer)) == 1
        before = sim.accepted_connections
        await observer.look(Look(target=replace(first, headers={"x-site": "lab"})))
        assert sim.accepted_connections == before + 1


@pytest.mark.system
async def test_it_is_closed_when_it_was_idle(
    fleet: Fleet, start_sim: StartSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.fleet.observe.kept_connections._IDLE_SECONDS", 0.1)
    sim = await start_sim()
    with lasting_observer(fleet) as observer:
        await observer.look(Look(target=spec(sim.url)))
        assert len(pool_of(observer)) == 1
        async with asyncio.timeout(5):
            while sim.open_connections:
                await asyncio.sleep(0.01)
        assert len(pool_of(observer)) == 0


@pytest.mark.system
async def test_no_descriptor_is_left(fleet: Fleet, start_sim: StartSim, certify: Certify) -> None:
    good = certify("good")
    plain, secure = await start_sim(), await start_sim(ssl_certfile=good.cert, ssl_keyfile=good.key)
    looks = [
        Look(target=spec(plain.url)),
        Look(target=spec(secure.url, "secure", tls=Tls(ca=good.cert))),
        Look(target=spec(secure.url, "distrusted")),
    ]

    def descriptors() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    await observed_for_a_while(fleet, looks)
    before = descriptors()
    for _ in range(3):
        await observed_for_a_while(fleet, looks)
    async with asyncio.timeout(5):
        while descriptors() > before:
            await asyncio.sleep(0.02)


async def observed_for_a_while(fleet: Fleet, looks: list[Look]) -> None:
    with lasting_observer(fleet) as observer:
        for _ in range(3):
            found = await observer.observe(looks)
        assert [found[name].known for name in ("edge", "secure", "distrusted")] == [True, True, False]
        assert len(pool_of(observer)) == 2
        working = asyncio.create_task(observer.observe(looks))
        await asyncio.sleep(0)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


@pytest.mark.parametrize(
    ("limit", "kept", "slow"), [(1024, 320, 320), (256, 0, 16), (100_000, 16_384, 1024), (-1, 16_384, 1024)]
)
async def test_they_leave_descriptors_for_the_rest(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, limit: int, kept: int, slow: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, limit))
    with lasting_observer(fleet) as observer:
        assert (pool_of(observer)._total, observer._second_lane) == (kept, slow)


async def test_targets_in_memory_have_none_to_keep() -> None:
    world = World()
    with lasting_observer(world.fleet) as observer:
        look = Look(target=TargetSpec(name="edge-1", base_url="http://edge-1:8000"))
        assert [(await observer.look(look)).known for _ in range(2)] == [True, True]
    assert world.targets.opened == {"edge-1": 2}
