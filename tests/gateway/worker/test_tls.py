"""The same over TLS, whose transports cannot close one direction alone."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from gateway_lab import JSON, OK, Client, Conn, GatewayLab, chat
from served import Certify


@pytest_asyncio.fixture
async def over_tls(tmp_path: Path, certify: Certify, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GatewayLab]:
    monkeypatch.setattr("garrison.gateway.worker.sweeping._SWEEP_SECONDS", 0.01)
    monkeypatch.setattr("garrison.gateway.worker.connections.inbound._LINGER_SECONDS", 0.2)
    named = certify("localhost")
    made = GatewayLab(tmp_path)
    await made.start(named.server())
    made.trusted = ssl.create_default_context(cafile=named.cert)
    made.sweep()
    try:
        yield made
        await made.settled()
    finally:
        await made.close()


async def answers(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(OK)


async def test_requests_over_tls(over_tls: GatewayLab) -> None:
    upstream = await over_tls.serve(answers)
    control = await over_tls.control(answers)
    over_tls.set(tls_cert="c", tls_key="k")
    client = await over_tls.client()
    for _ in range(3):
        assert (await client.ask(chat())).body == b"ok"
        assert (await client.ask(b"GET /ui/ HTTP/1.1\r\n\r\n")).body == b"ok"
    assert len(upstream.requests) == 3
    assert control.requests[0].get(b"x-forwarded-proto") == b"https"


async def test_a_refusal_over_tls_is_read(over_tls: GatewayLab) -> None:
    over_tls.set(max_body_bytes=2**16)
    client = await over_tls.client()
    for at in range(0, 2**20, 2**16):
        client.send(chat(bytes(2**20))[at : at + 2**16])
        await asyncio.sleep(0.001)
    assert (await client.answer()).status == 413
    await over_tls.until(lambda: not over_tls.plane.inbound)


async def test_a_client_that_goes_over_tls(over_tls: GatewayLab) -> None:
    async def silent(conn: Conn) -> None:
        await conn.request()
        await conn.ended()

    upstream = await over_tls.serve(silent)
    for end in (Client.close, Client.reset):
        client = await over_tls.client()
        client.send(chat(JSON, b"Connection: close"))
        await over_tls.until(lambda: len(upstream.requests) > len(upstream.ended_at))
        end(client)
        await over_tls.until(lambda: len(upstream.requests) == len(upstream.ended_at), 0.2)
