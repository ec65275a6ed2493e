"""Lookups whose threads fail, and names that cannot be looked up."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from garrison.net import resolver as resolver_module
from garrison.net import threads as threads_module
from garrison.net.client import HttpDialer
from garrison.net.endpoint import Server
from garrison.net.errors import TransportCause, TransportError
from garrison.net.resolver import Resolver


class NoThread(threading.Thread):
    """What a system without room for another thread does."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module.threading, "Thread", NoThread)


async def test_a_thread_that_cannot_start_fails_its_name(no_threads: None) -> None:
    resolver = Resolver()
    for _ in range(2):  # nothing is left behind that the next one would wait for
        async with asyncio.timeout(1):
            with pytest.raises(OSError, match="no thread can be started"):
                await resolver.addresses("edge.test")
    assert (resolver._running, resolver._asking, list(resolver._waiting)) == (0, {}, [])


async def test_it_is_a_fault_of_this_side(no_threads: None) -> None:
    with pytest.raises(TransportError) as caught:
        async with HttpDialer().open(Server(base_url="http://edge.test")) as connection:
            await connection.request("GET", "/", timeout=5)
    assert (caught.value.cause, caught.value.sent) == (TransportCause.LOCAL, False)


async def test_it_is_looked_up_once_threads_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "_look_up", lambda host: ("10.0.0.1",))
    resolver = Resolver()
    with monkeypatch.context() as patched:
        patched.setattr(threads_module.threading, "Thread", NoThread)
        with pytest.raises(OSError, match="no thread"):
            await resolver.addresses("edge.test")
    assert await resolver.addresses("edge.test") == ("10.0.0.1",)


async def test_running_threads_take_over_what_no_new_one_can(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def look_up(host: str) -> tuple[str, ...]:
        go.wait(10)
        return (f"10.0.0.{len(host)}",)

    monkeypatch.setattr(resolver_module, "_look_up", look_up)
    resolver = Resolver()
    first = asyncio.create_task(resolver.addresses("a"))
    await asyncio.sleep(0)
    monkeypatch.setattr(threads_module.threading, "Thread", NoThread)
    second = asyncio.create_task(resolver.addresses("bb"))
    await asyncio.sleep(0)
    go.set()
    async with asyncio.timeout(5):
        assert await asyncio.gather(first, second) == [("10.0.0.1",), ("10.0.0.2",)]


async def test_an_old_answer_serves_where_no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "_look_up", lambda host: ("10.0.0.1",))
    resolver = Resolver()
    await resolver.addresses("edge.test")
    monkeypatch.setattr(threads_module.threading, "Thread", NoThread)
    monkeypatch.setattr(resolver_module, "_FRESH_SECONDS", 0.0)
    assert resolver.fresh("edge.test") is None
    assert await resolver.addresses("edge.test") == ("10.0.0.1",)


@pytest.mark.parametrize("failure", [MemoryError(), ValueError("embedded null byte"), RuntimeError("a bug")])
async def test_a_lookup_that_fails_in_an_unexpected_way_fails_its_name(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def look_up(host: str) -> tuple[str, ...]:
        raise failure

    monkeypatch.setattr(resolver_module, "_look_up", look_up)
    resolver = Resolver()
    for _ in range(2):
        async with asyncio.timeout(5):
            with pytest.raises(type(failure)):
                await resolver.addresses("edge.test")
    async with asyncio.timeout(5):
        while resolver._running:
            await asyncio.sleep(0.01)
    assert resolver._asking == {}


@pytest.mark.parametrize("host", ["x" * 300, "ä" * 70, "a\0b"])
def test_no_host_name(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *_: Any, **__: Any) -> Any:
        raise ValueError("embedded null byte")

    if "\0" in host:
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(socket.gaierror, match="not a host name"):
        resolver_module._look_up(host)


@pytest.mark.parametrize("known", [False, True])
async def test_an_answer_that_comes_too_late_serves_the_next_request(
    monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Otherwise a name server that is slower than the deadline would never be heard."""
    addresses, go_on = ["10.0.0.1", "10.0.0.2"], threading.Event()

    def look_up(host: str) -> tuple[str, ...]:
        assert go_on.wait(10)
        return (addresses.pop(0),)

    monkeypatch.setattr(resolver_module, "_look_up", look_up)
    monkeypatch.setattr(resolver_module, "_PATIENCE_SECONDS", 0.02)
    resolver = Resolver()
    if known:
        go_on.set()
        await resolver.addresses("edge.test")
        go_on.clear()
        fresh = resolver_module._FRESH_SECONDS
        monkeypatch.setattr(resolver_module, "_FRESH_SECONDS", 0.0)
        assert await resolver.addresses("edge.test") == ("10.0.0.1",)
        monkeypatch.setattr(resolver_module, "_FRESH_SECONDS", fresh)
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await resolver.addresses("edge.test")
    go_on.set()
    async with asyncio.timeout(5):
        while resolver._running:
            await asyncio.sleep(0.01)
    assert resolver.fresh("edge.test") == ("10.0.0.2" if known else "10.0.0.1",)
