"""What an engine answers, whole or a chunk of it, as pieces for Ollama's clients."""

from dataclasses import replace
from typing import Any

import msgspec

from garrison.gateway.ollama.translation.errors import AnswerError, text_of
from garrison.gateway.ollama.translation.objects import Ended, Form, Piece
from garrison.gateway.ollama.translation.tool_calls import CallPiece, ToolCalls

__all__ = ["AnswerReader", "whole_answer"]


class _Said(msgspec.Struct, frozen=True):
    """A message, or what is new in it. Engines call what the model thought by two names."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallPiece] | None = None


class _Logprobs(msgspec.Struct, frozen=True):
    content: list[Any] | None = None


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Timings(msgspec.Struct, frozen=True):
    """llama.cpp's own, in milliseconds."""

    prompt_ms: float | None = None
    predicted_ms: float | None = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: Any = None
    object: str | None = None
    message: Any = None


_decoder = msgspec.json.Decoder(_Chunk)
_NOTHING = _Said()
_LENGTH = "length"


class AnswerReader:
    """Reads the chunks of one answer, of which a whole answer is one.

    Attributes:
        reason: why it ended; None while it has not.
        seen: there was a choice in it.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.seen = False
        self._first: float | None = None
        self._calls = ToolCalls()
        self._usage = _Usage()
        self._timings = _Timings()

    def take(self, chunk: bytes | str, at: float) -> Piece:
        """Return what is new in a chunk that arrived `at` seconds after the request.

        Raises:
            AnswerError: it is an error, or no chunk of an answer.
        """
        try:
            found = _decoder.decode(chunk)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise AnswerError(f"the engine answered what is no completion: {error}") from None
        if found.error or found.object == "error":
            raise AnswerError(text_of(found.error or found.message) or "the engine answered with an error")
        self._usage = found.usage or self._usage
        self._timings = found.timings or self._timings
        choice = next((one for one in found.choices if one.index == 0), None)
        if choice is None:
            return Piece()
        self.seen = True
        piece = self._piece(choice)
        if piece and self._first is None:
            self._first = at
        return piece

    def finish(self) -> Piece:
        """Return what is left of an answer that is complete, although it gave no reason. Raises AnswerError."""
        return Piece(tool_calls=self._calls.close())

    def ended(self, at: float, loaded: float | None) -> Ended:
        """Return how it ended.

        Args:
            loaded: when its head came, in seconds after the request; None for one that came whole, of which nobody
                saw the first token.
        """
        prompt, answer = self._timings.prompt_ms, self._timings.predicted_ms
        return Ended(
            self.reason or "stop", at, loaded=loaded, first=None if loaded is None else self._first,
            prompt_tokens=self._usage.prompt_tokens, answer_tokens=self._usage.completion_tokens,
            prompt_seconds=None if prompt is None else prompt / 1000,
            answer_seconds=None if answer is None else answer / 1000,
        )  # fmt: skip

    def _piece(self, choice: _Choice) -> Piece:
        said = choice.delta or choice.message or _NOTHING
        calls = self._calls.take(said.tool_calls) if said.tool_calls else []
        if choice.finish_reason is not None:
            self.reason = _reason(choice.finish_reason)
            calls += self._calls.close(cut=self.reason == _LENGTH)
        return Piece(
            content=said.content or choice.text or "",
            thinking=said.reasoning or said.reasoning_content or "",
            tool_calls=calls,
            logprobs=(choice.logprobs.content or ()) if choice.logprobs is not None else (),
        )


def whole_answer(form: Form, body: bytes, at: float) -> dict[str, Any]:
    """Translate an answer that is no stream.

    Raises:
        AnswerError: it is an error, or no answer.
    """
    reader = AnswerReader()
    piece = reader.take(body, at)
    if not reader.seen:
        raise AnswerError("the engine answered what is no completion")
    if reader.reason is None:
        piece = replace(piece, tool_calls=[*piece.tool_calls, *reader.finish().tool_calls])
    return form.last(piece, reader.ended(at, None))


def _reason(finish: str) -> str:
    """Ollama knows `stop` and `length`; a call of a tool is a stop.

    Raises:
        AnswerError: the engine gave up.
    """
    if finish in ("abort", "error"):
        raise AnswerError("the engine ended the answer before it was complete")
    return _LENGTH if finish == _LENGTH else "stop"
