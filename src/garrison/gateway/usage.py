"""The tokens that a request uses, read from its answer as that passes. Pure."""

import json
import re
from collections.abc import Iterable

from garrison.net.errors import TransportError
from garrison.net.sse import EventReader

__all__ = ["UsageReader", "estimate"]

_BYTES_PER_TOKEN = 4
_LARGEST_EVENT = 2**20
_LARGEST_BODY = 2**18
_END = 2**16
_MOST_TOKENS = 2**40

_ASKED = ("prompt_tokens", "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "tokens_evaluated")
_ANSWERED = ("completion_tokens", "output_tokens", "tokens_predicted")
_TOTAL = "total_tokens"
_NAMES = (*_ASKED, *_ANSWERED, _TOTAL)
"""OpenAI's names, then Anthropic's, whose `input_tokens` leave out what came from a cache, then llama.cpp's."""

_TEXTS = frozenset({
    "arguments", "choices", "content", "delta", "documents", "function", "input", "instructions", "message", "messages",
    "output", "partial_json", "prompt", "query", "reasoning", "reasoning_content", "system", "text", "text_1", "text_2",
    "thinking", "tool_calls",
})  # fmt: skip
"""The fields of requests and answers that hold text, or hold such fields."""

_USAGE = re.compile(rb'"usage"\s{0,9}:\s{0,9}(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')


class UsageReader:
    """Reads one answer, piece by piece, and keeps no more of it than a bound. How it was split makes no difference.

    What the engine says counts: `usage` in a JSON answer, in the last event of an OpenAI stream, in `message_start` and
    `message_delta` of an Anthropic one; the largest number where it says one several times. Where it says nothing, as
    in a stream without `stream_options.include_usage` or one that breaks off, the answer is estimated: a token for
    each four bytes of text in the events or in the JSON. Of JSON above 256 KiB, the first and last 64 KiB are searched
    for `usage`, and its text is not estimated; nor is anything after an event above 1 MiB.

    Args:
        content_type: of the answer. Other answers than JSON, event streams and text, such as audio, count nothing.
        asked: tokens of the request, for an engine that says nothing about it; see `estimate`.
    """

    def __init__(self, content_type: str, asked: int = 0) -> None:
        kind = content_type.partition(";")[0].strip().lower()
        self._events = EventReader(_LARGEST_EVENT) if kind == "text/event-stream" else None
        self._is_json = kind == "application/json"
        self._is_text = kind.startswith("text/") and self._events is None
        self._asked = asked
        self._said: dict[str, int] = {}
        self._text = 0
        self._body = bytearray()
        self._size = 0

    @property
    def tokens(self) -> int:
        """Tokens of the request and the answer together, as far as they are known by now."""
        if _TOTAL in self._said:
            return self._said[_TOTAL]
        asked = self._sum(_ASKED, self._asked)
        return asked + self._sum(_ANSWERED, _tokens_of(self._text))

    def feed(self, piece: bytes) -> None:
        """Read the next bytes of the answer."""
        if self._events is not None:
            # A line at a time: an event that is too large then loses none before it.
            for line in piece.splitlines(keepends=True):
                self._take_line(line)
        elif self._is_json:
            self._size += len(piece)
            self._body += piece
            if len(self._body) > _LARGEST_BODY:
                del self._body[_END:-_END]
        elif self._is_text:
            self._text += len(piece)

    def close(self) -> None:
        """Read what is left: the answer is complete."""
        if self._events is not None:
            self.feed(b"\n\n")  # the last event of a stream whose blank line is missing
        elif self._is_json and self._size <= _LARGEST_BODY:
            self._take(_loaded(self._body))
        elif self._is_json:
            for found in _USAGE.findall(bytes(self._body[:_END]) + b"\n" + bytes(self._body[-_END:])):
                self._count(_loaded(found))

    def _take_line(self, line: bytes) -> None:
        if self._events is None:
            return
        try:
            found = self._events.feed(line)
        except TransportError:
            self._events = None
            return
        for event in found:
            self._take(_loaded(event.data))

    def _take(self, found: object) -> None:
        """Read a document: an answer, or an event of one."""
        if not isinstance(found, dict):
            return
        self._count(found.get("usage"))
        self._count(found, ("tokens_evaluated", "tokens_predicted"))
        for name, names in (("message", _ASKED), ("response", _NAMES)):
            # A `message_start` of Anthropic's knows the request only; a `response.completed` of OpenAI's knows all.
            if isinstance(held := found.get(name), dict):
                self._count(held.get("usage"), names)
        self._text += _text_bytes(found)

    def _count(self, usage: object, names: Iterable[str] = _NAMES) -> None:
        if not isinstance(usage, dict):
            return
        for name in names:
            value = usage.get(name)
            if type(value) is int and 0 <= value <= _MOST_TOKENS:
                self._said[name] = max(value, self._said.get(name, 0))

    def _sum(self, names: Iterable[str], otherwise: int) -> int:
        found = [self._said[name] for name in names if name in self._said]
        return sum(found) if found else otherwise


def estimate(body: bytes, content_type: str) -> int:
    """Return about how many tokens a request has: one for each four bytes of text in its JSON, or for each token id.

    Images and sounds in it count nothing, and neither does a form.
    """
    return _tokens_of(_text_bytes(_loaded(body))) if not content_type.startswith("multipart/") else 0


def _tokens_of(size: int) -> int:
    return -(-size // _BYTES_PER_TOKEN)


def _loaded(text: str | bytes | bytearray) -> object:
    """Return a JSON document; None for what is none."""
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found


def _text_bytes(found: object) -> int:
    """Return the bytes of the text in a document."""
    size, rest = 0, [found]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            size += len(one.encode("utf-8", "surrogatepass"))
        elif isinstance(one, int):
            size += _BYTES_PER_TOKEN
        elif isinstance(one, list):
            rest += one
        elif isinstance(one, dict):
            rest += [value for name, value in one.items() if name in _TEXTS]
    return size
