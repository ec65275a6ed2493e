"""The error of an engine, or of the gateway, as one sentence."""

from http import HTTPStatus
from typing import Any

import msgspec

from garrison.base.output.plain_text import plain

__all__ = ["AnswerError", "error_text", "text_of"]

_LONGEST = 2000


class AnswerError(Exception):
    """An engine answered with an error, or with something that is no answer.

    Attributes:
        status: for a client that has had nothing yet.
    """

    def __init__(self, text: str, status: int = 502) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


def error_text(status: int, body: bytes) -> str:
    """Return what the body of a failed request says: `error` of OpenAI's form, or what other servers write there."""
    try:
        found = text_of(msgspec.json.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = ""
    if found:
        return found
    known = status in HTTPStatus._value2member_map_
    return f"the engine answered {status}{f' {HTTPStatus(status).phrase}' if known else ''}"


def text_of(error: Any) -> str:
    """Return the sentence in an error of any form; empty where there is none."""
    for _ in range(4):
        if isinstance(error, str):
            return plain(error if len(error) <= _LONGEST else f"{error[:_LONGEST]}…")
        if not isinstance(error, dict):
            break
        error = next((error[key] for key in ("error", "message", "detail", "details") if error.get(key)), None)
    return ""
