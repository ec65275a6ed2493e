"""What an answer says that it used, found in its last bytes or its first: nothing between them is kept. Pure."""

import msgspec

__all__ = ["AnswerEnds", "usage_of"]

TAIL_BYTES = 8192
"""Enough for the last events of a stream, and for what engines write after `usage` in a JSON answer."""
_HEAD = 512
"""Enough for engines that write `usage` before embeddings or ranks."""
_MESSAGES_HEAD = 4096
"""Enough for `message_start`."""
_SLACK = 4096
"""Bytes beyond the end that are kept until it is cut, so that not every piece costs a copy."""
_USAGE, _TIMINGS = b'"usage":', b'"timings":'
_BLANK, _OPEN = b" {"
_MOST_TOKENS = 2**40
"""A number above it, or below zero, is none."""


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Timings(msgspec.Struct):
    prompt_n: int
    predicted_n: int
    cache_n: int = 0


_decode = msgspec.json.Decoder(_Usage).decode
_decode_timings = msgspec.json.Decoder(_Timings).decode


class AnswerEnds:
    """The beginning and the end of one answer, where it may say what it used.

    `pieces` and `full_at` are for whoever feeds it, once for each piece of each answer: append the piece, and `cut`
    when the answer is longer than `full_at`.

    Args:
        messages: it is an answer of Anthropic's API, whose streams say at their beginning what was asked.
    """

    __slots__ = ("_head", "_messages", "full_at", "pieces")

    def __init__(self, *, messages: bool = False) -> None:
        self._messages = messages
        self._head: bytes | None = None
        self.pieces: list[bytes] = []
        self.full_at = TAIL_BYTES + _SLACK

    def cut(self, size: int) -> None:
        """Forget what is neither beginning nor end.

        Args:
            size: of the answer so far.
        """
        self.full_at = size + _SLACK
        if self._head is None:
            self._head = b"".join(self.pieces)[: _MESSAGES_HEAD if self._messages else _HEAD]
        last = self.pieces[-1]
        self.pieces = [(last if len(last) >= TAIL_BYTES else b"".join(self.pieces))[-TAIL_BYTES:]]

    def usage(self) -> tuple[int, int, int] | None:
        """Return what `usage_of` does."""
        pieces = self.pieces
        if not pieces:
            return None
        end = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._head is None:
            return usage_of(end[-TAIL_BYTES:], end, messages=self._messages)
        return usage_of(end[-TAIL_BYTES:], self._head, messages=self._messages)


def usage_of(tail: bytes, head: bytes = b"", *, messages: bool = False) -> tuple[int, int, int] | None:
    """Return tokens of the prompt, of the answer, and those of the prompt that were cached; None where it does not say.

    Args:
        tail: the end of a JSON answer or of a stream of events. The last `usage` that is not null counts; without one,
            the last `timings`, which llama.cpp sends with every answer.
        head: its beginning, which is searched where the end says nothing.
        messages: it is an answer of Anthropic's API: the tokens of the prompt leave out those that a cache had or took,
            and a stream says them in its first event.
    """
    last = _last(tail)
    if messages and (found := _of_messages(last, _first(head or tail))) is not None:
        return found
    if last is None and head is not tail:
        last = _last(head)
    if last is not None:
        return _tokens(last)
    at = tail.rfind(_TIMINGS)
    timings = _object(tail, at + len(_TIMINGS)) if at >= 0 else None
    return None if timings is None else _timed_tokens(timings)


def _last(text: bytes) -> _Usage | None:
    """Return the last usage that says something."""
    end = len(text)
    while (at := text.rfind(_USAGE, 0, end)) >= 0:
        end = at
        if (found := _usage(text, at)) is not None:
            return found
    return None


def _first(text: bytes) -> _Usage | None:
    at = text.find(_USAGE)
    return None if at < 0 else _usage(text, at)


def _usage(text: bytes, at: int) -> _Usage | None:
    found = _object(text, at + len(_USAGE))
    if found is None:
        return None
    try:
        usage = _decode(found)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return None if _tokens(usage) is None else usage


def _of_messages(last: _Usage | None, first: _Usage | None) -> tuple[int, int, int] | None:
    """Return the largest of each number that the first and the last usage of an answer say."""
    said = [one for one in (first, last) if one is not None and one.input_tokens is not None]
    if not said:
        return None
    asked, made, read = (
        max(getattr(one, name) or 0 for one in said)
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    )
    answered = max(one.output_tokens or 0 for one in (first, last) if one is not None)
    return _said(asked + made + read, answered, read)


def _tokens(usage: _Usage) -> tuple[int, int, int] | None:
    asked = usage.prompt_tokens
    if asked is not None:
        details = usage.prompt_tokens_details
        return _said(asked, usage.completion_tokens, details.cached_tokens if details is not None else None)
    asked, details = usage.input_tokens, usage.input_tokens_details
    answered = usage.completion_tokens if usage.completion_tokens is not None else usage.output_tokens
    if asked is None and answered is None:
        return None
    cached = usage.cache_read_input_tokens or (details.cached_tokens if details is not None else None)
    return _said(asked, answered, cached)


def _timed_tokens(found: bytes) -> tuple[int, int, int] | None:
    try:
        timings = _decode_timings(found)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return _said(timings.prompt_n + timings.cache_n, timings.predicted_n, timings.cache_n)


def _said(*numbers: int | None) -> tuple[int, int, int] | None:
    """Return the numbers, with zero for what is not said; None where one cannot be a number of tokens."""
    asked, answered, cached = (one or 0 for one in numbers)
    if 0 <= asked <= _MOST_TOKENS and 0 <= answered <= _MOST_TOKENS and 0 <= cached <= _MOST_TOKENS:
        return asked, answered, cached
    return None


def _object(text: bytes, at: int) -> bytes | None:
    """Return the JSON object that begins at `at`, after blanks; its strings have no braces."""
    size = len(text)
    while at < size and text[at] == _BLANK:
        at += 1
    if at >= size or text[at] != _OPEN:
        return None
    found = text[at : text.find(b"}", at) + 1]
    if found.rfind(b"{") == 0:  # nothing is nested, as in most
        return found
    depth, place = 0, at
    while True:
        opens, closes = text.find(b"{", place), text.find(b"}", place)
        if closes < 0:
            return None
        if 0 <= opens < closes:
            depth, place = depth + 1, opens + 1
        else:
            depth, place = depth - 1, closes + 1
            if depth == 0:
                return text[at:place]
