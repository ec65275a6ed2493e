"""Who makes each call, whether it may, and the record of it. As ASGI middleware around everything."""

import os
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from garrison.access.audit import AuditLog
from garrison.access.audit_entry import Outcome
from garrison.access.authorize import Action, ActionKind, admit
from garrison.access.book import Refusal
from garrison.access.credentials import token_of
from garrison.access.identity import Identity, anonymous, owner
from garrison.access.keys import Keys
from garrison.api.audited import AUDIT, verb_of
from garrison.api.errors import CODE, error_response
from garrison.base.errors import GarrisonError
from garrison.base.settings import Settings

__all__ = ["FOUND", "IDENTITY", "Authentication", "open_to"]

IDENTITY = "garrison.identity"
"""In the scope of a management call: who makes it."""
FOUND = "garrison.found"
"""In the scope of every request: whose token it has, or why nobody's. The gateway decides by it."""
_OPEN = frozenset({"/healthz", "/readyz"})
_OF_THE_GATEWAY = ("/v1/", "/llama-cpp/")
_READS = ("GET", "HEAD")
_CAPTURES = "/api/v1/captures/"
"""What others have sent to models, and were answered: for those who manage, and on record."""


class Authentication:
    """Refuses management calls without a key that permits them, and has every other one recorded.

    Requests to models pass: the gateway knows which model they are for. The owner of the data directory, on the unix
    socket, needs no key.

    Args:
        settings: returns those in force.
    """

    def __init__(self, app: ASGIApp, keys: Keys, audit: AuditLog, settings: Callable[[], Settings]) -> None:
        self._app = app
        self._keys = keys
        self._audit = audit
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope[FOUND] = found = await self._found(scope)
        path: str = scope["path"]
        if path in _OPEN or path.startswith(_OF_THE_GATEWAY):
            await self._app(scope, receive, send)
            return
        reads = scope["method"] in _READS and "/proxy/" not in path and not path.startswith(_CAPTURES)
        action = Action(ActionKind.READ if reads else ActionKind.MANAGE)
        try:
            scope[IDENTITY] = who = admit(found, open_to(self._settings()), action)
        except GarrisonError as error:
            await error_response(error)(scope, receive, send)
            return
        if reads:
            await self._app(scope, receive, send)
        else:
            await self._recorded(who, path, scope, receive, send)

    async def _found(self, scope: Scope) -> Identity | Refusal:
        if scope.get("garrison.local"):
            return owner(os.geteuid())
        token = token_of(Headers(scope=scope))
        found = self._keys.authenticate(token)
        if found is Refusal.UNKNOWN:  # a command may just have made it
            await self._keys.fresh()
            found = self._keys.authenticate(token)
        return found

    async def _recorded(self, who: Identity, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers, peer = Headers(scope=scope), scope.get("client")
        verb, subject = verb_of(scope["method"], path)
        with self._audit.call(
            who, verb, subject, request_id=headers.get("x-request-id", "")[:100], peer=peer[0] if peer else ""
        ) as call:
            scope[AUDIT] = call

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    call.outcome = Outcome(status, "ok" if status < 400 else scope.get(CODE, "invalid"))
                await send(message)

            await self._app(scope, receive, watched)


def open_to(values: Settings) -> Identity:
    """What callers may do without a key."""
    return anonymous(infers=not values.require_inference_auth, manages=not values.require_management_auth)
