"""What is said of a node that does not answer, and of one that answers and is of no use."""

import asyncio
import json

import pytest

from garrison.base.errors import DeniedError, UnreachableError, UnusableError
from garrison.net.thread_pool import ThreadPool
from garrison.nodes.ask import HttpAsk
from garrison.nodes.node import Node
from garrison.nodes.watch import NodeAnswer, Nodes
from garrison.server.node_activation import node_upstream
from garrison.testing.clock import FakeClock
from garrison.testing.nodes import MemoryNodes, MemoryNodeStore

pytestmark = pytest.mark.system

ANSWERS = {
    "refuses the key": (b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", DeniedError, "refuses the key"),
    "forbids": (b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", DeniedError, "refuses the key"),
    "has no such page": (b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", UnusableError, "answered 404"),
    "fails": (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", UnusableError, "answered 500"),
    "redirects": (
        b"HTTP/1.1 302 No\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", UnusableError, "answered 302",
    ),
    "is a web page": (b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", UnusableError, "is it a Garrison server?"),
    "is no web server": (b"SSH-2.0-OpenSSH_9.2\r\nhello\r\n\r\n", UnusableError, "answers, but not with HTTP"),
    "hangs up": (b"", UnreachableError, "does not answer"),
}  # fmt: skip


async def serving(answer):
    async def serve(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


@pytest.mark.parametrize(("answer", "error", "words"), ANSWERS.values(), ids=ANSWERS)
async def test_only_silence_is_out_of_reach(answer, error, words):
    server = await serving(answer)
    port = server.sockets[0].getsockname()[1]
    ask = HttpAsk()
    try:
        with pytest.raises(error) as caught:
            await ask(Node("edge", f"http://127.0.0.1:{port}"))
        assert words in caught.value.message
        assert type(caught.value) is error
    finally:
        await ask.close()
        server.close()


async def test_a_certificate_that_is_not_trusted_is_no_silence(certify):
    import ssl

    cert = certify("lab")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert.cert, cert.key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    ask = HttpAsk()
    try:
        with pytest.raises(UnusableError, match="answers, but TLS fails"):
            await ask(Node("edge", f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    finally:
        await ask.close()
        server.close()


class Refusing(MemoryNodes):
    """Raises what a test says, or answers."""

    error: Exception | None = None

    async def __call__(self, node):
        if self.error is not None:
            raise self.error
        return await super().__call__(node)


@pytest.mark.parametrize(
    ("error", "reach", "words"),
    [
        (UnreachableError("x does not answer"), "unreachable", "is out of reach"),
        (DeniedError("x refuses the key"), "unusable", "cannot be used"),
        (UnusableError("x answered 500"), "unusable", "cannot be used"),
    ],
    ids=["silent", "401", "500"],
)
async def test_the_state_of_a_node(error, reach, words):
    ask = Refusing()
    ask.error = error
    seen = []
    pool = ThreadPool("nodes", 1)
    nodes = Nodes(MemoryNodeStore(), ask, clock=FakeClock(), pool=pool, changed=seen.append)
    try:
        await nodes.add(Node("edge", "http://x"))
        await until(lambda: seen)
        assert (seen[-1].reach, seen[-1].away) == (reach, True)
        assert json.loads(json.dumps(seen[-1].to_json()))["state"] == reach
        with pytest.raises(type(error) if reach == "unreachable" else UnusableError, match=words):
            node_upstream(seen[-1])
        ask.error, ask.answers["edge"] = None, NodeAnswer("1", ())
        nodes.look("edge")
        await until(lambda: len(seen) > 1)
        assert (seen[-1].reach, seen[-1].away) == ("reachable", False)
    finally:
        await nodes.shutdown()
        pool.close(1)


async def until(holds):
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)
