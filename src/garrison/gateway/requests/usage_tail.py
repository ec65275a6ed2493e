"""What an answer says that it used, found in its last bytes: nothing before them is kept or decoded. Pure."""

import msgspec

__all__ = ["TAIL_BYTES", "usage_of"]

TAIL_BYTES = 8192
"""Enough for the last events of a stream, and for what engines write after `usage` in a JSON answer."""
_MARK = b'"usage":'


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


_decoder = msgspec.json.Decoder(_Usage)


def usage_of(tail: bytes) -> tuple[int, int, int] | None:
    """Return tokens of the prompt, of the answer, and those of the prompt that were cached; None where it does not say.

    Args:
        tail: the end of a JSON answer or of a stream of events. The last `usage` that is not null counts.
    """
    end = len(tail)
    while (at := tail.rfind(_MARK, 0, end)) >= 0:
        end = at
        found = _object(tail, at + len(_MARK))
        if found is not None:
            try:
                usage = _decoder.decode(found)
            except (msgspec.MsgspecError, RecursionError):
                continue
            details = usage.prompt_tokens_details or usage.input_tokens_details
            cached = usage.cache_read_input_tokens or (details.cached_tokens if details is not None else None)
            asked = usage.prompt_tokens if usage.prompt_tokens is not None else usage.input_tokens
            answered = usage.completion_tokens if usage.completion_tokens is not None else usage.output_tokens
            if asked is not None or answered is not None:
                return asked or 0, answered or 0, cached or 0
    return None


def _object(text: bytes, at: int) -> bytes | None:
    """Return the JSON object that begins at `at`, after blanks; its strings have no braces."""
    while text[at : at + 1] == b" ":
        at += 1
    if text[at : at + 1] != b"{":
        return None
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
