"""The shape that `--json` has: described in docs/json.md, and numbered."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["SCHEMA", "answer", "line"]

SCHEMA = 1
"""The number of the shape. It changes when a key goes, or means something else; new keys do not change it."""


def answer(body: Mapping[str, Any], *, code: int = 0, ok: bool | None = None) -> str:
    """Return the answer of a command as one line of JSON.

    Args:
        body: the keys of the command.
        code: the exit code.
        ok: whether the command did what it was asked to; by default, whether the exit code is 0.
    """
    head = {"schema": SCHEMA, "ok": code == 0 if ok is None else ok, "exit_code": int(code)}
    return json.dumps(head | {key: value for key, value in body.items() if key not in head}, ensure_ascii=False)


def line(body: Mapping[str, Any]) -> str:
    """Return one line of a stream, such as an event."""
    return json.dumps({"schema": SCHEMA} | dict(body), ensure_ascii=False)
