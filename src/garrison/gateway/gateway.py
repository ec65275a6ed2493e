"""The routes of the data plane, as one ASGI application."""

from typing import Any

from garrison.base.errors import DeniedError, GarrisonError, InvalidError, NotFoundError
from garrison.gateway.activator import Activator, Admission, Served
from garrison.gateway.answers import encoded, error_answer
from garrison.gateway.counted import CountedSend, readable
from garrison.gateway.model_name import named_model
from garrison.gateway.passthrough import PassThrough, Receive, Scope, Send, header, send_answer
from garrison.gateway.paths import is_inference, is_llama_cpp, uses_tokens
from garrison.gateway.requests.nested import needs_one_of
from garrison.gateway.usage import estimate

__all__ = ["Gateway", "read_body"]

_LIMIT_HINT = "GARRISON_MAX_BODY_MIB is the limit."
_GETS = ("/v1/models", "/v1/models/")


class Gateway:
    """`/v1/*` and `/llama-cpp/{name}/*`.

    Args:
        most_bytes: of a request's body.
    """

    def __init__(self, activator: Activator, admission: Admission, *, most_bytes: int) -> None:
        self.passthrough = PassThrough(activator)
        self._activator = activator
        self._admission = admission
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._route(scope, receive, send)
        except GarrisonError as error:
            await send_answer(send, *error_answer(error))

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if refused := self._admission.refusal(scope, None):
            raise refused
        if path.startswith("/llama-cpp/"):
            await self._llama_cpp(scope, receive, send)
        elif method == "GET" and path.startswith(_GETS):
            await send_answer(send, 200, {"content-type": "application/json"}, encoded(self._models(scope, path)))
        elif is_inference(path) and (method == "POST" or path.startswith("/v1/responses/")):
            body = await read_body(scope, receive, self._most_bytes)
            model = named_model(body, header(scope, b"content-type"))
            found = self._check(scope, model)
            if found.only_nested is not None:
                raise needs_one_of(model, found.only_nested)
            await self._forward(scope, receive, send, model=model, path=path, body=body)
        else:
            raise NotFoundError(f"there is no {method} {path}", hint="docs/server.md lists the paths.")

    async def _llama_cpp(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, _, rest = scope["path"].removeprefix("/llama-cpp/").partition("/")
        path = f"/{rest}"
        if not is_llama_cpp(scope["method"], path):
            raise NotFoundError(f"there is no {scope['method']} {path} of an instance here", hint="docs/server.md")
        self._check(scope, name)
        body = await read_body(scope, receive, self._most_bytes)
        await self._forward(scope, receive, send, model=name, path=path, body=body, name_in_body=False)

    async def _forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        model: str,
        path: str,
        body: bytes,
        name_in_body: bool = True,
    ) -> None:
        entry = self._admission.enter(scope)
        try:
            if entry.counts_tokens and uses_tokens(scope["method"], path):
                scope = readable(scope)
                send = CountedSend(send, entry, estimate(body, header(scope, b"content-type")))
            await self.passthrough.forward(
                scope, receive, send, model=model, path=path, body=body, name_in_body=name_in_body
            )
        finally:
            entry.leave()

    def _check(self, scope: Scope, model: str) -> Served:
        found = self._activator.find(model)
        if found is None:
            raise NotFoundError(f"there is no model {model!r}", hint="GET /v1/models lists those that exist.")
        if refused := self._admission.refusal(scope, found):
            raise refused
        return found

    def _models(self, scope: Scope, path: str) -> dict[str, Any]:
        allowed = [one for one in self._activator.served() if self._admission.refusal(scope, one) is None]
        if path.rstrip("/") == "/v1/models":
            return {"object": "list", "data": [_entry(one) for one in allowed if not one.only_nested]}
        wanted = path.removeprefix("/v1/models/")
        found = next((one for one in allowed if one.id == wanted), None)
        if found is None:
            raise NotFoundError(f"there is no model {wanted!r}", hint="GET /v1/models lists those that exist.")
        return _entry(found)


def _entry(one: Served) -> dict[str, Any]:
    return {"id": one.id, "object": "model", "created": one.created, "owned_by": one.owned_by, **one.facts}


async def read_body(scope: Scope, receive: Receive, most: int) -> bytes:
    """Read a body of at most `most` bytes.

    Raises:
        InvalidError: it is larger.
        DeniedError: the client went away.
    """
    told = header(scope, b"content-length")
    if told.isdigit() and int(told) > most:
        raise _TooLargeError(
            f"the body has {told} bytes; {most} are allowed", hint="GARRISON_MAX_BODY_MIB is the limit."
        )
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DeniedError("the client went away")
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise _TooLargeError(f"the body has more than {most} bytes", hint=_LIMIT_HINT)
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


class _TooLargeError(InvalidError):
    """A request body over the limit."""

    http_status = 413
