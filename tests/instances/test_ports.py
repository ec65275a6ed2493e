"""Ports on real sockets, and the rules on a twin."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from garrison.base.errors import ConflictError
from garrison.instances.ports import Ports
from garrison.net.thread_pool import ThreadPool


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    made = ThreadPool("ports")
    yield made
    made.close(5)


def bound(family: int, host: str, *, listening: bool, v6only: bool = False, port: int = 0) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    made.bind((host, port))
    if listening:
        made.listen()
    return made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("listening", [True, False])
@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
)
async def test_what_others_hold_is_not_given(pool: ThreadPool, family: int, host: str, listening: bool) -> None:
    with bound(family, host, listening=listening) as held:
        port = held.getsockname()[1]
        with pytest.raises(ConflictError, match=f"no port from {port} to {port} is free"):
            await Ports((port, port), pool).give(())
        with pytest.raises(ConflictError):
            await Ports((port, port), pool).give((), kept=port)
    assert await Ports((port, port), pool).give(()) == port


async def test_a_port_of_another_address_is_free(pool: ThreadPool) -> None:
    port = free_port()
    with bound(socket.AF_INET, "127.0.0.2", listening=True, port=port):
        assert await Ports((port, port), pool).give(()) == port


async def test_a_port_is_given_once(pool: ThreadPool) -> None:
    first = free_port()
    ports = Ports((first, min(first + 20, 65535)), pool)
    given = await asyncio.gather(*(ports.give(()) for _ in range(5)))
    assert len(set(given)) == 5


async def test_the_port_of_an_instance_is_kept_while_it_is_free(pool: ThreadPool) -> None:
    with bound(socket.AF_INET, "127.0.0.1", listening=True) as held:
        port = held.getsockname()[1]
        ports = Ports((free_port(), 65535), pool)
        moved = await ports.give((), kept=port)
        assert moved != port
    assert await ports.give({port}, kept=port) == port
    assert await ports.give(range(65536), kept=port) == port, "its own record says that it is taken"


async def test_a_port_whose_last_connections_have_just_ended_is_free(pool: ThreadPool) -> None:
    with bound(socket.AF_INET, "127.0.0.1", listening=True) as held:
        port = held.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = held.accept()
        served.close()  # first, so that the server's side waits
        client.close()
    assert await Ports((port, port), pool).give(()) == port
