"""The objects that Ollama's clients read: pieces of an answer, and its end. Times are in nanoseconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

__all__ = ["Ended", "Form", "Piece", "stamp"]

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new in an answer. `tool_calls` are complete calls."""

    content: str = ""
    thinking: str = ""
    tool_calls: Sequence[dict[str, Any]] = ()
    logprobs: Sequence[Any] = ()

    def __bool__(self) -> bool:
        return bool(self.content or self.thinking or self.tool_calls or self.logprobs)


@dataclass(frozen=True, slots=True)
class Ended:
    """How an answer ended. Seconds are counted from the request; None where it is not known.

    Attributes:
        reason: `stop`, `length`, `load` or `unload`.
        loaded, first: when the engine had the request, and when its first token arrived.
        prompt_seconds, answer_seconds: as the engine measured them; they count more than what was seen from here.
    """

    reason: str
    at: float
    loaded: float | None = None
    first: float | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    prompt_seconds: float | None = None
    answer_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """The shape of one answer.

    Args:
        model: as the client named it.
        chat: the answer is a message, not a text.
        began: when the request came.
    """

    model: str
    chat: bool
    began: datetime

    def part(self, piece: Piece, at: float) -> dict[str, Any]:
        """Return one object of a stream, `at` seconds after the request."""
        return {**self._head(at), **self._body(piece), "done": False}

    def last(self, piece: Piece, ended: Ended) -> dict[str, Any]:
        """Return the last object of a stream, or the only one of an answer that is none."""
        told = {**self._head(ended.at), **self._body(piece), "done": True, "done_reason": ended.reason}
        if ended.reason in ("load", "unload"):
            return told
        return told | _measured(ended)

    def _head(self, at: float) -> dict[str, Any]:
        return {"model": self.model, "created_at": stamp(self.began + timedelta(seconds=at))}

    def _body(self, piece: Piece) -> dict[str, Any]:
        more: dict[str, Any] = {"thinking": piece.thinking} if piece.thinking else {}
        if piece.tool_calls:
            more["tool_calls"] = list(piece.tool_calls)
        logprobs = {"logprobs": list(piece.logprobs)} if piece.logprobs else {}
        if self.chat:
            return {"message": {"role": "assistant", "content": piece.content, **more}, **logprobs}
        return {"response": piece.content, **more, **logprobs}


def stamp(when: datetime) -> str:
    """Return a time as Ollama writes it. Its time zone must be UTC."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _measured(ended: Ended) -> dict[str, Any]:
    loaded = ended.loaded or 0.0
    # Where the first token came together with the last, nobody knows how long the prompt took. No answer takes no time:
    # clients divide by it.
    first = ended.first if ended.first is not None and ended.first < ended.at else loaded
    prompt = first - loaded if ended.prompt_seconds is None else ended.prompt_seconds
    answer = ended.at - first if ended.answer_seconds is None else ended.answer_seconds
    found: dict[str, Any] = {"total_duration": _nanoseconds(ended.at), "load_duration": _nanoseconds(loaded)}
    if ended.prompt_tokens is not None:
        found["prompt_eval_count"] = ended.prompt_tokens
    found["prompt_eval_duration"] = _nanoseconds(prompt)
    if ended.answer_tokens is not None:
        found["eval_count"] = ended.answer_tokens
    return found | {"eval_duration": _nanoseconds(answer)}


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * _NANOSECONDS))
