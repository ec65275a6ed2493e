"""The shape that `--json` has: described in docs/json.md, and numbered."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["SCHEMA", "answer", "interrupted", "line"]

SCHEMA = 1
"""The number of the shape. It changes when a key goes, or means something else; new keys do not change it."""


def answer(body: Mapping[str, Any], *, code: int = 0, ok: bool | None = None) -> str:
    """Return the answer of a command as one line of JSON. Values that JSON does not know are written as text.

    Args:
        body: the keys of the command.
        code: the exit code.
        ok: whether the command did what it was asked to; by default, whether the exit code is 0.
    """
    head = {"schema": SCHEMA, "ok": code == 0 if ok is None else ok, "exit_code": int(code)}
    rest = {key: value for key, value in body.items() if key not in head}
    return json.dumps(head | rest, ensure_ascii=False, default=str)


def interrupted(code: int) -> str:
    """Return the answer of a command that a signal ended."""
    return answer({"code": "interrupted", "error": "interrupted"}, code=code)


def line(body: Mapping[str, Any]) -> str:
    """Return one line of a stream, such as an event."""
    return json.dumps({"schema": SCHEMA} | dict(body), ensure_ascii=False, default=str)
