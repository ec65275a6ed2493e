"""The paths of OpenAI's and Anthropic's APIs that Ollama has too: passed on, but for the name of the model."""

from garrison.gateway.ollama.catalogue import Catalogue
from garrison.gateway.ollama.client import Client
from garrison.gateway.ollama.door import Door, passed
from garrison.gateway.requests.body_fields import read_fields
from garrison.gateway.requests.rewrite import rewrite, rewritten
from garrison.net.client import Response
from garrison.net.errors import TransportError

__all__ = ["PATHS", "CutError", "OpenAi"]

PATHS = (
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages",
    "/v1/messages/count_tokens",
)  # fmt: skip


class CutError(Exception):
    """An answer broke off after its head was sent, which its client sees by the end of its connection."""


class OpenAi:
    """Passes requests on to the gateway."""

    def __init__(self, door: Door, catalogue: Catalogue) -> None:
        self._door, self._catalogue = door, catalogue

    async def get(self, client: Client, _: bytes) -> None:
        """`GET /v1/models` and `GET /v1/models/NAME`."""
        async with self._door.stream("GET", client.raw_path, client.passed, relay=True) as response:
            await _relay(client, response)

    async def post(self, client: Client, data: bytes) -> None:
        """A request to a model, in JSON."""
        model = read_fields(data).model
        name = await self._catalogue.name(model, client.passed)
        body = rewritten(data, rewrite(model=name), model)
        async with self._door.stream("POST", client.path, client.passed, body, relay=True) as response:
            await _relay(client, response)


async def _relay(client: Client, response: Response) -> None:
    kind = response.headers.get("content-type", "application/json")
    await client.begin(kind, response.status, passed(response.headers))
    try:
        async for piece in response:
            await client.write(piece)
    except TransportError as error:
        raise CutError(error.detail) from None
    await client.write(b"", last=True)
