"""The way to a gateway that speaks TLS, under whatever name its certificate has."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from served import Certificate, Certify

from garrison.gateway.ollama.door import Door, RefusedError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@asynccontextmanager
async def gateway(certificate: Certificate) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificate.server())
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def asked(door: Door) -> bytes:
    try:
        return (await door.ask("GET", "/v1/models", {})).body
    finally:
        door.close()


async def test_its_own_certificate_is_enough(certify: Certify) -> None:
    named = certify("models", "DNS:models.example.com")
    async with gateway(named) as url:
        assert await asked(Door(url, Path(named.cert))) == b"ok"


async def test_another_certificate_is_not_accepted_even_for_the_right_address(certify: Certify) -> None:
    async with gateway(certify("other")) as url:
        with pytest.raises(RefusedError, match="the certificate is not trusted"):
            await asked(Door(url, Path(certify("models", "DNS:models.example.com").cert)))


async def test_a_renewed_certificate_is_read_and_the_one_before_stays(certify: Certify, tmp_path: Path) -> None:
    old, new = certify("old"), certify("new")
    path = tmp_path / "server.pem"
    shutil.copy(old.cert, path)
    async with gateway(old) as before, gateway(new) as after:
        door, other = Door(before, path), Door(after, path)
        assert await asked(door) == b"ok"
        with pytest.raises(RefusedError):
            await asked(other)
        shutil.copy(new.cert, path)
        assert await asked(other) == b"ok"
        assert await asked(door) == b"ok"


@pytest.mark.parametrize(
    "text", ["", "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE----------BEGIN CERTIFICATE-----"]
)
async def test_a_file_without_a_certificate(certify: Certify, tmp_path: Path, text: str) -> None:
    path = tmp_path / "server.pem"
    path.write_text(text)
    async with gateway(certify("models")) as url:
        with pytest.raises(RefusedError, match="no PEM certificate"):
            await asked(Door(url, path))
        path.unlink()
        with pytest.raises(RefusedError, match="certificate"):
            await asked(Door(url, path))
