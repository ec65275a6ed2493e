"""Answers of creations by idempotency key, so that a repeated request does not create twice."""

import hashlib
import json
from collections import OrderedDict
from typing import Any

from garrison.base.errors import ConflictError

__all__ = ["Idempotency"]

_KEPT = 1024


class Idempotency:
    """The last 1,024 creations."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[str, dict[str, Any]]] = OrderedDict()

    def answered(self, key: str, request: Any) -> dict[str, Any] | None:
        """Return the answer that was given to `key`; None if there was none.

        Raises:
            ConflictError: `key` was used for another request.
        """
        found = self._seen.get(key)
        if found is None:
            return None
        if found[0] != _digest(request):
            raise ConflictError("this idempotency key was used for another request", hint="Use a new one.")
        return found[1]

    def remember(self, key: str, request: Any, answer: dict[str, Any]) -> None:
        self._seen[key] = (_digest(request), answer)
        while len(self._seen) > _KEPT:
            self._seen.popitem(last=False)


def _digest(request: Any) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
