"""`/api/chat`, `/api/generate`, `/api/embed` and `/api/embeddings`."""

import asyncio
from collections.abc import Mapping

import msgspec

from garrison.base.logs import logger
from garrison.gateway.ollama.catalogue import Catalogue
from garrison.gateway.ollama.client import LINES, Client
from garrison.gateway.ollama.door import Door, RefusedError, passed
from garrison.gateway.ollama.translation.answers import whole_answer
from garrison.gateway.ollama.translation.bodies import (
    ChatBody,
    EmbedBody,
    EmbeddingsBody,
    GenerateBody,
    KeepAlive,
    is_zero,
    read_body,
)
from garrison.gateway.ollama.translation.embeddings import Vectors, embed_answer, read_vectors
from garrison.gateway.ollama.translation.objects import Ended, Form, Piece
from garrison.gateway.ollama.translation.options import check_context, read_options
from garrison.gateway.ollama.translation.requests import Asked, chat_request, embed_request, generate_request
from garrison.gateway.ollama.translation.stream import StreamTranslator
from garrison.net.client import Response
from garrison.net.errors import TransportError

__all__ = ["Answering"]

_MOST_UNLOADING = 64
_UNLOAD_SECONDS = 600.0

_encoded = msgspec.json.Encoder().encode
_log = logger(__name__)


class Answering:
    """Answers what models are asked."""

    def __init__(self, door: Door, catalogue: Catalogue) -> None:
        self._door, self._catalogue = door, catalogue
        self._unloading: set[asyncio.Task[None]] = set()

    async def chat(self, client: Client, data: bytes) -> None:
        """`POST /api/chat`. Without messages the model is loaded, or unloaded with `keep_alive: 0`."""
        body = read_body(data, ChatBody)
        form = Form(body.model, True, client.began)
        await self._answer(client, body, form, chat_request(body) if body.messages else None)

    async def generate(self, client: Client, data: bytes) -> None:
        """`POST /api/generate`. Without a prompt as `chat` without messages."""
        body = read_body(data, GenerateBody)
        form = Form(body.model, False, client.began)
        await self._answer(client, body, form, generate_request(body) if body.prompt else None)

    async def embed(self, client: Client, data: bytes) -> None:
        """`POST /api/embed`."""
        body = read_body(data, EmbedBody)
        vectors = await self._vectors(client, body)
        await client.json(embed_answer(body.model, vectors, body.dimensions, client.elapsed))

    async def embeddings(self, client: Client, data: bytes) -> None:
        """`POST /api/embeddings`, the older call for one text. Its vector is the engine's own."""
        old = read_body(data, EmbeddingsBody)
        body = EmbedBody(old.model, old.prompt, options=old.options, keep_alive=old.keep_alive)
        await client.json({"embedding": (await self._vectors(client, body)).first})

    # ---

    async def _answer(self, client: Client, body: ChatBody | GenerateBody, form: Form, asked: Asked | None) -> None:
        if asked is None:
            reason = await self._load_or_unload(client, body)
            await client.json(form.last(Piece(), Ended(reason, client.elapsed)))
            return
        name, served = await self._checked(client, body.model, asked)
        request = _encoded(asked.of(name, served))
        if asked.body["stream"]:
            async with self._door.stream("POST", asked.path, client.passed, request) as response:
                await _relay(client, form, response)
        else:
            answer = await self._door.ask("POST", asked.path, client.passed, request)
            await client.json(whole_answer(form, answer.body, client.elapsed), headers=passed(answer.headers))
        self._unload_if_asked(body.keep_alive, name, client.passed)

    async def _checked(self, client: Client, model: str, asked: Asked) -> tuple[str, int | None]:
        """Return the name of a model, and its context if the request depends on it."""
        if asked.num_ctx is None and not asked.endless:
            return await self._catalogue.name(model, client.passed), None
        found = await self._catalogue.find(model, client.passed)
        served = await self._catalogue.served(found, client.passed)
        check_context(model, asked.num_ctx, served)
        return found.name, served

    async def _load_or_unload(self, client: Client, body: ChatBody | GenerateBody) -> str:
        found = await self._catalogue.find(body.model, client.passed)
        if is_zero(body.keep_alive):
            await self._unload(found.name, client.passed)
            return "unload"
        served = await self._catalogue.start(found, client.passed)
        check_context(body.model, read_options(body.options).num_ctx, served)
        return "load"

    async def _vectors(self, client: Client, body: EmbedBody) -> Vectors:
        asked = embed_request(body)
        if not asked.body["input"]:  # as in Ollama, a way to load the model
            await self._catalogue.start(await self._catalogue.find(body.model, client.passed), client.passed)
            return Vectors()
        name, _ = await self._checked(client, body.model, asked)
        answer = await self._door.ask("POST", asked.path, client.passed, _encoded(asked.of(name)))
        self._unload_if_asked(body.keep_alive, name, client.passed)
        return read_vectors(answer.body)

    async def _unload(self, name: str, headers: Mapping[str, str]) -> None:
        await self._door.ask("POST", "/models/unload", headers, {"model": name}, seconds=_UNLOAD_SECONDS)

    def _unload_if_asked(self, keep_alive: KeepAlive, name: str, headers: Mapping[str, str]) -> None:
        """Unload a model after its answer, which is complete: whether its client stays does not matter any more."""
        if not is_zero(keep_alive) or len(self._unloading) >= _MOST_UNLOADING:
            return

        async def unload() -> None:
            try:
                await self._unload(name, headers)
            except RefusedError as error:
                _log.info("a model was not unloaded", model=name, status=error.status, error=error.text)

        task = asyncio.create_task(unload(), name="unload")
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)


async def _relay(client: Client, form: Form, response: Response) -> None:
    """Translate a stream as it arrives."""
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        body = await response.read()  # an engine that does not stream answers in one piece
        await client.json(whole_answer(form, body, client.elapsed), headers=passed(response.headers))
        return
    translator = StreamTranslator(form, client.elapsed)
    await client.begin(LINES, headers=passed(response.headers))
    try:
        async for piece in response:
            if lines := translator.feed(piece, client.elapsed):
                await client.write(lines)
    except TransportError as error:
        await client.write(translator.fail(f"the engine's answer broke off: {error.detail}"))
    await client.write(translator.end(client.elapsed), last=True)
