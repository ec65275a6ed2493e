"""The verbs on keys, as calls to a server elsewhere."""

from dataclasses import asdict, fields
from typing import Any

from garrison.access.changes import KEEP, KeyChange, NewKey
from garrison.access.key import Issued, Key
from garrison.access.permissions import Grants
from garrison.access.stored import key_from_json, key_tag
from garrison.base.errors import UnreachableError
from garrison.cli.server.client import ServerClient

__all__ = ["HttpKeys"]

_PATH = "/auth/keys"


class HttpKeys:
    """`KeyOperations` on a server. Its calls block: a command has nothing else to do meanwhile."""

    def __init__(self, server: ServerClient) -> None:
        self._server = server

    async def list_keys(self) -> list[Key]:
        found = self._server.call("GET", _PATH)
        if not isinstance(found, list):
            raise self._stranger()
        return [self._key(one) for one in found]

    async def get_key(self, id: int) -> Key:
        return self._key(self._server.call("GET", f"{_PATH}/{id}"))

    async def create_key(self, new: NewKey) -> Issued:
        return self._issued(self._server.call("POST", _PATH, body=_asked(new)))

    async def update_key(self, id: int, change: KeyChange, *, revision: int | None = None) -> Key:
        return self._key(self._change("PATCH", id, "", revision, _asked(change)))

    async def rotate_key(self, id: int, overlap: float = 0.0, *, revision: int | None = None) -> Issued:
        return self._issued(self._change("POST", id, "/rotate", revision, {"overlap": overlap}))

    async def delete_key(self, id: int, *, revision: int | None = None) -> Key:
        key = await self.get_key(id)
        self._change("DELETE", id, "", revision)
        return key

    def _change(self, method: str, id: int, verb: str, revision: int | None, body: Any = None) -> Any:
        headers = {} if revision is None else {"If-Match": key_tag(id, revision)}
        return self._server.exchange(method, f"{_PATH}/{id}{verb}", body=body, headers=headers).body

    def _issued(self, found: Any) -> Issued:
        key = self._key(found)
        token = found.get("key")
        if not isinstance(token, str) or not token.isprintable():
            raise self._stranger()
        return Issued(key, token)

    def _key(self, found: Any) -> Key:
        try:
            key = key_from_json(found)
        except (ArithmeticError, AssertionError, LookupError, OSError, TypeError, ValueError):
            raise self._stranger() from None
        if not _is_well_formed(key):
            raise self._stranger()
        return key

    def _stranger(self) -> UnreachableError:
        return UnreachableError(
            f"{self._server.place} shows keys in another form", hint="Is it a Garrison server of this version?"
        )


def _is_well_formed(key: Key) -> bool:
    """Whether the views can show a key that a server sent. They print the beginnings of tokens as they are."""
    only = key.permissions.only or Grants()
    limits = [one for one in asdict(key.limits).values() if one is not None]
    tokens = [key.prefix, key.previous_prefix or ""]
    texts = [key.name, key.note, *tokens, *only.instances, *only.models]
    return (
        all(isinstance(one, int) for one in (key.id, key.revision, key.priority, *limits, *only.instance_ids))
        and all(isinstance(one, str) for one in texts)
        and all(one.isprintable() for one in tokens)
    )


def _asked(key: NewKey | KeyChange) -> dict[str, Any]:
    """The body that asks for a key or a change of one, with the fields that are given."""
    given = {one.name: getattr(key, one.name) for one in fields(key)}
    body = {name: value for name, value in given.items() if value is not KEEP}
    if "permissions" in body:
        permissions = body.pop("permissions")
        only = permissions.only or Grants()
        body |= {"scopes": sorted(permissions.scopes), "permission_mode": permissions.mode}
        body |= {one.name: sorted(getattr(only, one.name)) for one in fields(only)}
    if "limits" in body:
        body["limits"] = asdict(body["limits"])
    if body.get("expires_at") is not None:
        body["expires_at"] = int(body["expires_at"].timestamp())
    return body
