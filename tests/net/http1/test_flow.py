"""Pausing and going on, whatever state the transport is in."""

import asyncio

from framing import MemoryTransport

from garrison.net.http1.flow import FlowControl


def connected() -> tuple[FlowControl, MemoryTransport]:
    flow = FlowControl()
    return flow, MemoryTransport().attach(flow)


async def test_reading_is_paused_once() -> None:
    flow, transport = connected()
    for paused in (True, True, False, False, True):
        flow.pause_reading(paused)
        assert transport.reading is not paused


async def test_a_transport_that_is_gone_is_left_alone() -> None:
    flow, transport = connected()
    assert flow.send(b"a")
    transport.close()
    flow.pause_reading(True)
    assert not flow.send(b"b")
    transport.lose()
    flow.pause_reading(True)
    assert not flow.send(b"c")
    assert (bytes(transport.written), transport.reading) == (b"a", True)
    assert not FlowControl().send(b"d")


async def test_waiting_until_the_peer_reads() -> None:
    flow, _ = connected()
    await flow.drained()
    flow.pause_writing()
    first, second = (asyncio.create_task(flow.drained()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    assert not second.done()  # another's cancellation is not its end
    flow.resume_writing()
    await second
    await flow.drained()


async def test_nobody_waits_for_a_peer_that_is_gone() -> None:
    flow, transport = connected()
    flow.pause_writing()
    waiting = asyncio.create_task(flow.drained())
    await asyncio.sleep(0)
    transport.lose(ConnectionResetError(104, "x"))
    await waiting
    await flow.drained()
