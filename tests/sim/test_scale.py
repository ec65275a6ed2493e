"""Many requests and many servers: nothing grows."""

import asyncio
import gc
import os
from pathlib import Path

import psutil
import pytest

from garrison.sim.config import SimConfig
from garrison.sim.simulator import Simulator
from garrison.testing.adapter_reader import MemoryAdapters

from .client import Client, call, load, request_bytes, until
from .conftest import Start

PLAIN = {"model": "acme/tiny", "prompt": "hi there", "max_tokens": 8}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def sockets_of(port: int) -> list[str]:
    """The states of this process's sockets at `port`, on either side."""
    found = psutil.Process(os.getpid()).net_connections("inet")
    return [one.status for one in found if port in [end.port for end in (one.laddr, one.raddr) if end]]


async def storm(sim: Simulator, count: int) -> None:
    """`count` requests of every kind over short and long connections."""
    kinds = [
        request_bytes("GET", "/v1/models"),
        request_bytes("POST", "/v1/completions", PLAIN),
        request_bytes("POST", "/v1/completions", PLAIN | {"stream": True}),
        request_bytes("GET", "/nope"),
        request_bytes("POST", "/v1/completions", b"{bad"),
    ]
    client = await Client.open(sim)
    for at in range(count):
        await client.send(kinds[at % len(kinds)])
        await client.reply()
        if at % 100 == 99:
            await client.close()
            client = await Client.open(sim)
    await client.close()
    await until(lambda: sim.open_connections == 0)


@pytest.mark.system
async def test_ten_thousand_requests_leave_nothing_behind(start: Start) -> None:
    sim = await start()
    await storm(sim, 1000)
    gc.collect()
    tasks, memory = len(asyncio.all_tasks()), psutil.Process(os.getpid()).memory_info().rss
    await storm(sim, 10_000)
    gc.collect()
    # Its own sockets alone: what other tests left open may be closed, or collected, meanwhile.
    await until(lambda: sockets_of(sim.port) == ["LISTEN"])
    assert len(asyncio.all_tasks()) <= tasks
    assert psutil.Process(os.getpid()).memory_info().rss - memory < 8 * 2**20
    assert sim.counters.running == sim.counters.waiting == sim.aborted_requests == 0


@pytest.mark.system
async def test_two_hundred_servers_in_one_loop() -> None:
    shelf = MemoryAdapters()
    for at in range(10):
        shelf.put(f"/a{at}", f"d{at}")
    files = descriptors()
    servers = [
        Simulator(
            SimConfig(port=0, model="acme/tiny", enable_lora=True, runtime_lora=True, max_cpu_loras=10), adapters=shelf
        )
        for _ in range(200)
    ]
    await asyncio.gather(*(server.start() for server in servers))
    assert len({server.port for server in servers}) == 200
    await asyncio.gather(*(load(server, f"a{at}", f"/a{at}") for server in servers for at in range(10)))
    lists = await asyncio.gather(*(call(server, "GET", "/v1/models") for server in servers))
    assert {len(reply.json["data"]) for reply in lists} == {11}
    await asyncio.gather(*(server.stop() for server in servers))
    await until(lambda: descriptors() <= files)  # a socket closes a turn of the loop after its server
