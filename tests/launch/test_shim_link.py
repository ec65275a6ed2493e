"""The starter's end of the connection to a shim."""

import asyncio
import json
import socket

from garrison.launch.run.shim_link import ShimLink


def pair() -> tuple[ShimLink, socket.socket]:
    ours, theirs = socket.socketpair()
    return ShimLink(ours), theirs


async def test_the_last_event_survives_a_reset() -> None:
    """The shim exits with a request unread, which resets the connection, and a request that follows fails."""
    link, shim = pair()
    link.request({"do": "ping"})
    shim.sendall(b'{"event": "ended", "status": -9}\n')
    shim.close()
    link.request({"do": "kill"})
    await asyncio.sleep(0)
    assert await link.event() == {"event": "ended", "status": -9}
    assert await link.event() is None
    link.close()


async def test_answers_are_skipped_and_lines_joined() -> None:
    link, shim = pair()
    with shim:
        shim.sendall(b'{"ok": true}\n{"event": "sta')
        waiting = asyncio.create_task(link.event())
        await asyncio.sleep(0)
        shim.sendall(b'rted"}\n')
        assert await waiting == {"event": "started"}
    link.close()


async def test_a_message_larger_than_the_socket_holds() -> None:
    link, shim = pair()
    text = "x" * 4_000_000
    with shim:
        sending = asyncio.create_task(link.send({"env": text}))
        got = await asyncio.to_thread(shim.makefile("rb").readline)
        await sending
    assert json.loads(got) == {"env": text}
    link.close()


async def test_closing_ends_the_wait() -> None:
    link, shim = pair()
    with shim:
        waiting = asyncio.create_task(link.event())
        await asyncio.sleep(0)
        link.close()
        async with asyncio.timeout(5):
            assert await waiting is None
        assert shim.recv(1) == b""
    link.request({"do": "ping"})


async def test_an_endless_line_is_the_end() -> None:
    link, shim = pair()
    with shim:
        shim.settimeout(5)
        writing = asyncio.create_task(asyncio.to_thread(shim.sendall, b"x" * 2_000_000))
        async with asyncio.timeout(5):
            assert await link.event() is None
        link.close()
        await asyncio.wait([writing])
        assert writing.exception() is None or isinstance(writing.exception(), OSError)
