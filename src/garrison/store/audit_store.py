"""The audit log: who asked for what, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

__all__ = ["AuditRow", "AuditStore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One call.

    Attributes:
        who: the kind of caller: `key`, `config`, `owner` or `anonymous`.
        key_id: of a caller with a stored key.
        name: of the caller, as it was then.
        uid: of a caller on the unix socket, or at the command line.
        action: a verb, such as `keys.create`.
        subject_kind, subject_name: what it was done to.
        before, after: JSON, without secrets; None where there is nothing.
        status: the HTTP status of its outcome.
        code: `ok`, or the stable code of its error.
        request_id: empty where there is no request.
        peer: the address it came from; empty for local callers.
        node: the machine that carried it out.
        id: its place in the log; 0 before it is stored.
    """

    at: datetime
    who: str
    name: str
    action: str
    subject_kind: str
    subject_name: str
    status: int
    code: str
    key_id: int | None = None
    uid: int | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    request_id: str = ""
    peer: str = ""
    node: str = ""
    id: int = 0


class AuditStore(Protocol):
    def add_audit(self, rows: Sequence[AuditRow]) -> None:
        """Append to the log. `UpkeepStore.prune` deletes what is old."""

    def audit(
        self,
        *,
        key_id: int | None = None,
        action: str | None = None,
        subject: tuple[str, str] | None = None,
        since: datetime | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[AuditRow]:
        """Return calls that match all filters, newest first.

        Args:
            subject: kind and name.
            before_id: only calls before this one, for the next page.
        """
