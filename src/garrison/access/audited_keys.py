"""The verbs on keys for one caller, each of which goes into the audit log."""

from garrison.access.audit import AuditLog
from garrison.access.audit_entry import Outcome
from garrison.access.changes import KeyChange, NewKey
from garrison.access.identity import Identity
from garrison.access.key import Issued, Key
from garrison.access.operations import KeyOperations
from garrison.access.stored import key_to_json

__all__ = ["AuditedKeys"]


class AuditedKeys:
    """`KeyOperations` that records who calls it. Whether the caller may is decided before.

    Args:
        who: the caller.
        request_id, peer: of its request; empty at the command line.
    """

    def __init__(
        self, keys: KeyOperations, audit: AuditLog, who: Identity, *, request_id: str = "", peer: str = ""
    ) -> None:
        self._keys = keys
        self._audit = audit
        self._who = who
        self._of = {"request_id": request_id, "peer": peer}

    async def list_keys(self) -> list[Key]:
        with self._audit.call(self._who, "keys.list", ("key", ""), **self._of):
            return await self._keys.list_keys()

    async def get_key(self, id: int) -> Key:
        with self._audit.call(self._who, "keys.get", ("key", str(id)), **self._of):
            return await self._keys.get_key(id)

    async def create_key(self, new: NewKey) -> Issued:
        with self._audit.call(self._who, "keys.create", ("key", ""), **self._of) as call:
            issued = await self._keys.create_key(new)
            call.subject = "key", str(issued.key.id)
            call.after, call.outcome = key_to_json(issued.key), Outcome(201, "ok")
            return issued

    async def update_key(self, id: int, change: KeyChange, *, revision: int | None = None) -> Key:
        with self._audit.call(self._who, "keys.update", ("key", str(id)), **self._of) as call:
            call.before = key_to_json(await self._keys.get_key(id))
            key = await self._keys.update_key(id, change, revision=revision)
            call.after = key_to_json(key)
            return key

    async def rotate_key(self, id: int, overlap: float = 0.0, *, revision: int | None = None) -> Issued:
        with self._audit.call(self._who, "keys.rotate", ("key", str(id)), **self._of) as call:
            call.before = key_to_json(await self._keys.get_key(id))
            issued = await self._keys.rotate_key(id, overlap, revision=revision)
            call.after = key_to_json(issued.key)
            return issued

    async def delete_key(self, id: int, *, revision: int | None = None) -> Key:
        with self._audit.call(self._who, "keys.delete", ("key", str(id)), **self._of) as call:
            key = await self._keys.delete_key(id, revision=revision)
            call.before, call.outcome = key_to_json(key), Outcome(204, "ok")
            return key
