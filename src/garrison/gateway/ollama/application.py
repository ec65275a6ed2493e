"""The application: which path is answered by what, who may ask, and how an error is told."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from garrison.base.errors import GarrisonError
from garrison.base.logs import logger
from garrison.gateway.ollama.answering import Answering
from garrison.gateway.ollama.catalogue import Catalogue
from garrison.gateway.ollama.client import Client, ClientGoneError
from garrison.gateway.ollama.door import Door, RefusedError
from garrison.gateway.ollama.guard import may_ask, reaches_us
from garrison.gateway.ollama.models import Models
from garrison.gateway.ollama.openai import PATHS, CutError, OpenAi
from garrison.gateway.ollama.told import Told
from garrison.gateway.ollama.translation.errors import AnswerError

__all__ = ["Application"]

_Handler = Callable[[Client, bytes], Coroutine[Any, Any, None]]
_Routes = Mapping[str, Mapping[str, _Handler]]
_ASKED_HEADERS = "authorization, content-type, x-api-key, x-request-id, x-requested-with"
_PREFLIGHT_SECONDS = "600"
_log = logger(__name__)


class Application:
    """The ASGI application of the process."""

    def __init__(self, told: Told, door: Door) -> None:
        catalogue = Catalogue(door)
        self._told = told
        self._openai = OpenAi(door, catalogue)
        self._routes = _routes(Answering(door, catalogue), Models(catalogue), self._openai)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        client = Client(scope, receive, send)
        try:
            self._check(client)
            if client.method == "OPTIONS":
                await self._preflight(client)
                return
            handler = self._handler(client)
            data = await client.body(self._told.max_body_bytes)
            await _while_there(client, handler(client, data))
        except ClientGoneError:
            return
        except RefusedError as error:
            await _refuse(client, error.status, error.text, error.headers)
        except AnswerError as error:
            await _refuse(client, error.status, error.text)
        except GarrisonError as error:
            text = error.message if error.hint is None else f"{error.message}. {error.hint}"
            await _refuse(client, error.http_status, text)
        except CutError:
            raise  # the server closes the connection
        except Exception as error:  # noqa: BLE001 - the outermost frame of a request
            _log.error("a request failed because of a bug", exception=error, path=client.path)
            await _refuse(client, 500, "a bug in Garrison; the log has the details")

    def _check(self, client: Client) -> None:
        """Refuse what a web page could send in somebody's name; allow the answer to be read by one that may ask."""
        host, origin = client.headers.get("host", ""), client.headers.get("origin")
        if not reaches_us(host, self._told.hosts):
            raise RefusedError(403, f"the host {host[:200]!r} is not one of this server: see GARRISON_ALLOWED_HOSTS")
        if origin is None:
            return
        if not may_ask(origin, host, self._told.origins):
            text = f"pages of {origin[:200]!r} may not call this server: see GARRISON_ALLOWED_ORIGINS"
            raise RefusedError(403, text)
        client.more = {"access-control-allow-origin": origin, "vary": "origin"}

    def _handler(self, client: Client) -> _Handler:
        path = client.path.rstrip("/") or "/"
        methods = self._routes.get(path)
        if methods is None and path.startswith("/v1/models/"):
            methods = _reads(self._openai.get)
        if methods is None and path.startswith("/api/blobs/"):
            methods = self._routes["/api/create"]
        if methods is None:
            raise RefusedError(404, f"there is no {client.path[:200]}")
        if (handler := methods.get(client.method)) is None:
            raise RefusedError(405, f"{path} takes {', '.join(methods)}", {"allow": ", ".join(methods)})
        return handler

    async def _preflight(self, client: Client) -> None:
        allowed = {
            "access-control-allow-methods": "GET, HEAD, POST, DELETE, OPTIONS",
            "access-control-allow-headers": _ASKED_HEADERS,
            "access-control-max-age": _PREFLIGHT_SECONDS,
        }
        await client.whole(b"", "text/plain; charset=utf-8", 200, allowed)


def _routes(answering: Answering, models: Models, openai: OpenAi) -> _Routes:
    changes = dict.fromkeys(("POST", "DELETE", "HEAD", "PUT"), models.refused)
    return {
        "/": _reads(models.running),
        "/api/version": _reads(models.version),
        "/api/tags": _reads(models.tags),
        "/api/ps": _reads(models.ps),
        "/api/show": {"POST": models.show},
        "/api/pull": {"POST": models.pull},
        "/api/chat": {"POST": answering.chat},
        "/api/generate": {"POST": answering.generate},
        "/api/embed": {"POST": answering.embed},
        "/api/embeddings": {"POST": answering.embeddings},
        **dict.fromkeys(("/api/create", "/api/copy", "/api/delete", "/api/push"), changes),
        "/v1/models": _reads(openai.get),
        **{path: {"POST": openai.post} for path in PATHS},
    }


def _reads(handler: _Handler) -> Mapping[str, _Handler]:
    return {"GET": handler, "HEAD": handler}


async def _while_there(client: Client, work: Coroutine[Any, Any, None]) -> None:
    """Do the work of a request, and end it at once when its client leaves: so does the request to the engine.

    Raises:
        ClientGoneError: it left.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(client.gone())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and not client.complete:
            raise ClientGoneError
        await task
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait((task, gone))
        if not task.cancelled():
            task.exception()  # a failure that nobody is there to be told of


async def _refuse(client: Client, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
    """Answer with an error in Ollama's form, or, on a path of OpenAI's, in that one."""
    if client.answered:
        raise CutError(text)
    if not client.path.startswith("/v1/"):
        await client.json({"error": text}, status, headers)
        return
    kind = "invalid_request_error" if status < 500 else "server_error"
    await client.json({"error": {"message": text, "type": kind, "param": None, "code": None}}, status, headers)
