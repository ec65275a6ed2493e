"""Adapters from which a command beside the server keeps requests away while it unloads them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from served_api import ServedApi

from garrison.api.fleet import holds
from garrison.testing.adapter_traffic import MemoryTraffic

SQL = ("edge-1", "sql@1")
URL = "/api/v1/targets/edge-1/holds"


@pytest.fixture
def traffic() -> MemoryTraffic:
    return MemoryTraffic()


@pytest.fixture
async def served(tmp_path: Path, traffic: MemoryTraffic) -> AsyncIterator[ServedApi]:
    made = ServedApi(tmp_path)
    made.fleet.fleet.traffic = traffic
    await made.startup()
    yield made
    await made.shutdown()


async def none_away(traffic: MemoryTraffic) -> None:
    async with asyncio.timeout(5):
        while traffic.away:
            await asyncio.sleep(0.001)


async def test_requests_stay_away_until_the_caller_says_so(served: ServedApi, traffic: MemoryTraffic) -> None:
    begun = await served.client.post(URL, json={"adapter": "sql@1"})
    assert (begun.status_code, begun.json()["unused"], traffic.away) == (200, True, {SQL})
    ended = await served.client.delete(f"{URL}/{begun.json()['id']}")
    assert ended.status_code == 204
    await none_away(traffic)
    again = await served.client.delete(f"{URL}/{begun.json()['id']}")
    assert again.status_code == 404


async def test_one_that_is_in_use_is_told(served: ServedApi, traffic: MemoryTraffic) -> None:
    traffic.running[SQL] = 1
    begun = await served.client.post(URL, json={"adapter": "sql@1", "seconds": 0.05})
    assert begun.json()["unused"] is False
    assert traffic.away == {SQL}


async def test_a_caller_that_was_killed_holds_nothing_up(
    served: ServedApi, traffic: MemoryTraffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "_LONGEST_SECONDS", 0.05)
    begun = await served.client.post(URL, json={"adapter": "sql@1"})
    assert begun.json()["unused"] is True
    await none_away(traffic)
    assert (await served.client.delete(f"{URL}/{begun.json()['id']}")).status_code == 404


async def test_one_whose_caller_went_away_before_the_answer(served: ServedApi, traffic: MemoryTraffic) -> None:
    traffic.running[SQL] = 1
    asked = asyncio.create_task(served.services.holds.begin(*SQL, 30.0))
    async with asyncio.timeout(5):
        while not traffic.away:
            await asyncio.sleep(0.001)
    asked.cancel()
    await asyncio.wait([asked])
    traffic.running.clear()
    await none_away(traffic)


async def test_too_many(served: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "_MOST", 1)
    assert (await served.client.post(URL, json={"adapter": "a"})).status_code == 200
    assert (await served.client.post(URL, json={"adapter": "b"})).status_code == 503


async def test_a_server_that_ends_lets_them_back(served: ServedApi, traffic: MemoryTraffic) -> None:
    traffic.running[SQL] = 1
    asked = asyncio.create_task(served.client.post(URL, json={"adapter": "sql@1", "seconds": 30}))
    assert (await served.client.post(URL, json={"adapter": "other"})).status_code == 200
    async with asyncio.timeout(5):
        while SQL not in traffic.away:
            await asyncio.sleep(0.001)
    await served.services.holds.shutdown()
    assert traffic.away == set()
    assert (await asked).json()["unused"] is False
    assert (await served.client.post(URL, json={"adapter": "other"})).status_code == 503


async def test_one_that_ends_before_it_began_is_answered(traffic: MemoryTraffic) -> None:
    made = holds.AdapterHolds(traffic)
    asked = asyncio.create_task(made.begin(*SQL, 1.0))
    ended: list[asyncio.Task[None]] = []
    asyncio.get_running_loop().call_soon(lambda: ended.append(asyncio.create_task(made.shutdown())))
    asyncio.get_running_loop().call_soon(lambda: [one.cancel() for one in made._tasks])
    async with asyncio.timeout(5):
        _, unused = await asked
    assert (unused, traffic.away, made._ends) == (False, set(), {})
    await asyncio.wait(ended)


async def test_a_command_waits_until_requests_go_by_what_it_has_recorded(
    served: ServedApi, traffic: MemoryTraffic
) -> None:
    assert (await served.client.post("/api/v1/routes/refresh")).status_code == 204
    assert traffic.followed == 1
