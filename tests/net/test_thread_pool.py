"""Calls on threads that may hang."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from garrison.net.thread_pool import ThreadPool


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """What hanging calls wait for; set in the end."""
    made = threading.Event()
    yield made
    made.set()


async def test_results_and_errors_reach_the_caller() -> None:
    pool = ThreadPool("disk")
    assert await pool.run(lambda: 7, "seven") == 7
    with pytest.raises(KeyError, match="gone"):
        await pool.run(lambda: {}["gone"], "look up")
    assert pool.close(5) == []


async def test_one_thread_keeps_the_order(hold: threading.Event) -> None:
    pool, done = ThreadPool("disk"), list[int]()
    first = asyncio.create_task(pool.run(lambda: hold.wait(10), "first"))
    await asyncio.sleep(0)
    rest = [asyncio.create_task(pool.run(lambda n=number: done.append(n), "append")) for number in range(20)]  # type: ignore[misc] # a default in a lambda
    await asyncio.sleep(0)
    hold.set()
    await asyncio.gather(first, *rest)
    assert done == list(range(20))
    assert pool.close(5) == []


async def test_it_has_as_many_threads_as_it_needs_and_no_more(hold: threading.Event) -> None:
    pool = ThreadPool("reader", 3)
    for _ in range(5):
        await pool.run(lambda: None, "nothing")
    names = [one.name for one in threading.enumerate()]
    assert names.count("reader") == 1, "one is enough for one call after the other"
    calls = [asyncio.create_task(pool.run(lambda: hold.wait(10), "wait")) for _ in range(9)]
    async with asyncio.timeout(5):
        while [one.name for one in threading.enumerate()].count("reader") < 3:
            await asyncio.sleep(0)
    hold.set()
    assert await asyncio.gather(*calls) == [True] * 9
    assert [one.name for one in threading.enumerate()].count("reader") == 3
    assert pool.close(5) == []


async def test_a_cancelled_caller_leaves_its_call_and_the_thread_to_others(hold: threading.Event) -> None:
    pool, ran = ThreadPool("disk"), list[str]()
    begun = threading.Event()

    def first() -> None:
        begun.set()
        hold.wait(10)
        ran.append("first")

    running = asyncio.create_task(pool.run(first, "first"))
    queued = asyncio.create_task(pool.run(lambda: ran.append("queued"), "queued"))
    async with asyncio.timeout(5):
        while not begun.is_set():
            await asyncio.sleep(0)
    running.cancel()
    queued.cancel()
    await asyncio.wait([running, queued])
    hold.set()
    await pool.run(lambda: ran.append("last"), "last")
    assert ran == ["first", "last"], "what nobody waits for is not begun"
    assert pool.close(5) == []


async def test_a_closed_pool_refuses_calls_and_has_carried_out_those_before(hold: threading.Event) -> None:
    pool = ThreadPool("disk")
    call = asyncio.create_task(pool.run(lambda: "done", "call"))
    await asyncio.sleep(0)
    assert pool.close(5) == []
    assert await call == "done"
    with pytest.raises(RuntimeError, match="disk is closed"):
        await pool.run(lambda: None, "late")


async def test_a_call_that_hangs_is_named_and_left_behind(hold: threading.Event) -> None:
    pool = ThreadPool("garrison-disk")
    begun = threading.Event()

    def read() -> None:
        begun.set()
        hold.wait(10)

    hung = asyncio.create_task(pool.run(read, "digest /mnt/sql"))
    async with asyncio.timeout(5):
        while not begun.is_set():
            await asyncio.sleep(0)
    hung.cancel()
    assert pool.close(0) == ["garrison-disk: digest /mnt/sql, for 0 s"]


@pytest.mark.system
def test_the_interpreter_exits_while_a_call_hangs() -> None:
    program = """
import asyncio, threading
from garrison.net.thread_pool import ThreadPool

async def main():
    pool = ThreadPool("garrison-disk")
    begun = threading.Event()
    def read():
        begun.set()
        threading.Event().wait()
    asyncio.create_task(pool.run(read, "read"))
    while not begun.is_set():
        await asyncio.sleep(0.01)
    print(*pool.close(0))

asyncio.run(main())
"""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "garrison-disk: read, for 0 s\n"
    assert time.monotonic() - begun < 20


async def test_the_threads_of_a_pool_that_is_dropped_exit(hold: threading.Event) -> None:
    pool = ThreadPool("dropped", 2)
    await asyncio.gather(pool.run(lambda: time.sleep(0.05), "sleep"), pool.run(lambda: time.sleep(0.05), "sleep"))
    named = [one for one in threading.enumerate() if one.name == "dropped"]
    assert len(named) == 2
    del pool
    for one in named:
        one.join(5)
    assert not any(one.is_alive() for one in named)


async def test_an_iterator_that_is_empty_fails_its_call() -> None:
    pool = ThreadPool("disk")
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="read the first raised StopIteration"):
            await pool.run(lambda: next(iter(())), "read the first")
    assert pool.close(5) == []
