"""Sleep: what waits, what is aborted, what it holds, and what may go wrong."""

import asyncio
from pathlib import Path

import pytest

from garrison.sim.faults import Faults

from .client import call, load, text, until, write_adapter
from .conftest import Start

PROMPT = "The quick brown fox jumps over the lazy dog."
ENDLESS = {"model": "acme/tiny", "prompt": PROMPT, "stream": True, "max_tokens": 60, "ignore_eos": True}


async def test_mode_wait_lets_requests_finish_and_keeps_new_ones_out(start: Start) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True, faults=Faults(tokens_per_second=200))
    running = asyncio.create_task(call(sim, "POST", "/v1/completions", ENDLESS))
    await until(lambda: sim.counters.running == 1)
    sleep = asyncio.create_task(call(sim, "POST", "/sleep?level=1&mode=wait"))
    await asyncio.sleep(0.05)
    late = asyncio.create_task(call(sim, "POST", "/v1/completions", ENDLESS))
    assert (await sleep).status == 200
    assert (await running).events[-2]["choices"][0]["finish_reason"] == "length"
    assert not late.done()
    await call(sim, "POST", "/wake_up")
    assert (await late).status == 200


async def test_the_fault_aborts_what_was_to_finish(start: Start) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True, faults=Faults(tokens_per_second=200, sleep_aborts=True))
    running = asyncio.create_task(call(sim, "POST", "/v1/completions", ENDLESS))
    await until(lambda: sim.counters.running == 1)
    await call(sim, "POST", "/sleep?level=1&mode=wait")
    assert (await running).events[-2]["choices"][0]["finish_reason"] == "abort"


async def test_it_is_awake_when_every_part_is(start: Start) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True)
    await call(sim, "POST", "/sleep?level=2")
    await call(sim, "POST", "/wake_up?tags=weights")
    assert (await call(sim, "GET", "/is_sleeping")).json == {"is_sleeping": True}
    await call(sim, "POST", "/wake_up?tags=kv_cache")
    assert (await call(sim, "GET", "/is_sleeping")).json == {"is_sleeping": False}


async def test_level_2_loses_the_adapters_until_they_are_loaded_again(start: Start, tmp_path: Path) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True, enable_lora=True)
    path = write_adapter(tmp_path / "sql")
    await load(sim, "sql", path)
    before = await text(sim, "sql", PROMPT)
    await call(sim, "POST", "/sleep?level=2")
    await call(sim, "POST", "/wake_up")
    await call(sim, "POST", "/collective_rpc", {"method": "reload_weights"})
    assert await text(sim, "sql", PROMPT) != before
    await call(sim, "POST", "/v1/unload_lora_adapter", {"lora_name": "sql"})
    await load(sim, "sql", path)
    assert await text(sim, "sql", PROMPT) == before


@pytest.mark.parametrize(("faults", "asleep"), [(Faults(), 0), (Faults(sleep_keeps_memory=True), 4 << 20)])
async def test_memory_goes_and_comes_back(start: Start, faults: Faults, asleep: int) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True, memory_mib=4, faults=faults)
    held = []
    for path in ("/sleep?level=1", "/wake_up"):
        held.append(sim.state.memory.bytes)
        await call(sim, "POST", path)
    held.append(sim.state.memory.bytes)
    assert held == [4 << 20, asleep, 4 << 20]


async def test_a_wake_that_fails_and_one_that_answers_wrongly(start: Start) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True)
    before = await text(sim, "acme/tiny", PROMPT)
    await call(sim, "POST", "/sleep?level=1")
    sim.faults = Faults(wake_fails=True)
    assert (await call(sim, "POST", "/wake_up")).status == 500
    sim.faults = Faults(wake_wrong_answer=True)
    await call(sim, "POST", "/wake_up")
    assert await text(sim, "acme/tiny", PROMPT) != before


async def test_a_sleep_that_hangs_leaves_it_awake(start: Start) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True, faults=Faults(sleep_hangs=True))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await call(sim, "POST", "/sleep")
    assert (await call(sim, "GET", "/is_sleeping")).json == {"is_sleeping": False}


async def test_delays(start: Start) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    sim = await start(sleep=sleep, enable_sleep_mode=True, dev_mode=True, faults=Faults(sleep_delay=3, wake_delay=2))
    await call(sim, "POST", "/sleep")
    await call(sim, "POST", "/wake_up")
    assert waited == [3, 2]
