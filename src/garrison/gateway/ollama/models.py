"""`/api/tags`, `/api/show`, `/api/ps`, `/api/pull` and `/api/version`, and what this server does not do."""

from datetime import UTC, datetime

import msgspec

from garrison.gateway.ollama.catalogue import Catalogue
from garrison.gateway.ollama.client import LINES, Client
from garrison.gateway.ollama.door import RefusedError
from garrison.gateway.ollama.translation.bodies import NamedBody, read_body
from garrison.gateway.ollama.translation.listing import loaded, shown, tags

__all__ = ["VERSION", "Models"]

VERSION = "0.33.0"
"""Of Ollama's API. Clients compare it with what they need."""
_STATUSES = ("pulling manifest", "verifying sha256 digest", "writing manifest", "success")


class Models:
    """Answers what there is to know about models."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def running(self, client: Client, _: bytes) -> None:
        """`GET /`."""
        await client.whole(b"Ollama is running", "text/plain; charset=utf-8")

    async def version(self, client: Client, _: bytes) -> None:
        """`GET /api/version`."""
        await client.json({"version": VERSION})

    async def tags(self, client: Client, _: bytes) -> None:
        """`GET /api/tags`."""
        await client.json(tags(await self._catalogue.entries(client.passed)))

    async def ps(self, client: Client, _: bytes) -> None:
        """`GET /api/ps`."""
        await client.json(loaded(await self._catalogue.entries(client.passed), datetime.now(UTC)))

    async def show(self, client: Client, data: bytes) -> None:
        """`POST /api/show`."""
        body = read_body(data, NamedBody)
        found = await self._catalogue.find(body.model or body.name, client.passed)
        assert found.entry is not None
        await client.json(shown(found.name, found.entry))

    async def pull(self, client: Client, data: bytes) -> None:
        """`POST /api/pull`: what is served is there already."""
        body = read_body(data, NamedBody)
        name = body.model or body.name
        try:
            await self._catalogue.find(name, client.passed)
        except RefusedError as error:
            if error.status != 404:
                raise
            text = f"model '{name}' is not served here, and this server pulls no models for Ollama's clients"
            raise RefusedError(404, f"{text}. `garrison instance create` adds one.") from None
        if body.stream is False:
            await client.json({"status": _STATUSES[-1]})
            return
        lines = b"".join(msgspec.json.encode({"status": one}) + b"\n" for one in _STATUSES)
        await client.whole(lines, LINES)

    async def refused(self, client: Client, _: bytes) -> None:
        """What would change the models of this server."""
        raise RefusedError(
            501,
            f"{client.method} {client.path} is not supported: models are added, changed and removed by "
            "`garrison instance`, by a manifest, or by the management API",
        )
