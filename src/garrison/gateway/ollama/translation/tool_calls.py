"""Calls of tools, whose arguments engines send in pieces of JSON text and Ollama's clients read as an object."""

from collections.abc import Sequence
from typing import Any

import msgspec

from garrison.gateway.ollama.translation.errors import AnswerError

__all__ = ["CallPiece", "FunctionPiece", "ToolCalls"]

_MOST_BYTES = 4 * 1024 * 1024
_MOST_CALLS = 256


class FunctionPiece(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class CallPiece(msgspec.Struct, frozen=True):
    """A piece of a call, as OpenAI's API streams it. The first of a call has its name."""

    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class _Open:
    """A call that is not complete yet."""

    def __init__(self, index: int, first: CallPiece) -> None:
        self.index = index
        self.id = first.id or ""
        self.name = ""
        self.whole: dict[str, Any] | None = None
        self.pieces: list[str] = []


class ToolCalls:
    """Puts the calls of one answer together."""

    def __init__(self) -> None:
        self._open: _Open | None = None
        self._size = self._count = 0

    def take(self, pieces: Sequence[CallPiece]) -> list[dict[str, Any]]:
        """Take pieces, and return the calls that are complete because another one has begun.

        Raises:
            AnswerError: there are too many, or the arguments of one are no object.
        """
        found: list[dict[str, Any]] = []
        for piece in pieces:
            if self._open is None or self._begins(self._open, piece):
                found += self.close()
                self._open = _Open(self._count if piece.index is None else piece.index, piece)
                self._count += 1
                if self._count > _MOST_CALLS:
                    raise AnswerError(f"the model called more than {_MOST_CALLS} tools in one answer")
            self._add(self._open, piece.function)
        return found

    def close(self, *, cut: bool = False) -> list[dict[str, Any]]:
        """Return the last call, if there is one. The answer is complete.

        Args:
            cut: the answer ended at a limit, so that a call that cannot be read is left out.

        Raises:
            AnswerError: its arguments are no object.
        """
        call, self._open = self._open, None
        if call is None:
            return []
        arguments = call.whole if call.whole is not None else _object("".join(call.pieces))
        if arguments is None:
            if cut:
                return []
            raise AnswerError(f"the model called the tool {call.name!r} with arguments that are no JSON object")
        told = {"function": {"index": call.index, "name": call.name, "arguments": arguments}}
        return [{"id": call.id, **told} if call.id else told]

    def _begins(self, last: _Open, piece: CallPiece) -> bool:
        """Whether a piece is the first of another call. Not every engine numbers them."""
        if piece.index is not None:
            return piece.index != last.index
        return bool(piece.id and piece.id != last.id) or bool(piece.function and piece.function.name and last.name)

    def _add(self, call: _Open, function: FunctionPiece | None) -> None:
        if function is None:
            return
        call.name = call.name or function.name or ""
        if isinstance(function.arguments, dict):
            call.whole = function.arguments
        elif function.arguments:
            self._size += len(function.arguments)
            if self._size > _MOST_BYTES:
                raise AnswerError("the arguments of the tools that the model called are too long")
            call.pieces.append(function.arguments)


def _object(text: str) -> dict[str, Any] | None:
    if not text.strip():
        return {}
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
