"""What an answer says that it used, found in its last bytes: nothing before them is kept or decoded. Pure."""

import msgspec

__all__ = ["TAIL_BYTES", "usage_of"]

TAIL_BYTES = 8192
"""Enough for the last events of a stream, and for what engines write after `usage` in a JSON answer."""
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


class _Timings(msgspec.Struct):
    prompt_n: int
    predicted_n: int
    cache_n: int = 0


_decode = msgspec.json.Decoder(_Usage).decode
_decode_timings = msgspec.json.Decoder(_Timings).decode


def usage_of(tail: bytes) -> tuple[int, int, int] | None:
    """Return tokens of the prompt, of the answer, and those of the prompt that were cached; None where it does not say.

    Args:
        tail: the end of a JSON answer or of a stream of events. The last `usage` that is not null counts; without one,
            the last `timings`, which llama.cpp sends with every answer.
    """
    end = len(tail)
    while (at := tail.rfind(_USAGE, 0, end)) >= 0:
        end = at
        found = _object(tail, at + len(_USAGE))
        if found is not None and (tokens := _tokens(found)) is not None:
            return tokens
    at = tail.rfind(_TIMINGS)
    found = _object(tail, at + len(_TIMINGS)) if at >= 0 else None
    return None if found is None else _timed_tokens(found)


def _tokens(found: bytes) -> tuple[int, int, int] | None:
    try:
        usage = _decode(found)
    except (msgspec.MsgspecError, RecursionError):
        return None
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
