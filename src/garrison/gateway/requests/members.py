"""Where the members of a JSON object stand in its bytes.

Escaped quotes are blanked out in a copy of equal length, in which a quote always begins or ends a string. In that copy
regular expressions skip what is nested, in linear time: what they repeat cannot match the same bytes in two ways.
"""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from garrison.base.errors import InvalidError

__all__ = ["Member", "members"]

_MOST_STEPS = 200_000
"""Members, and matches inside them: a body that is nothing but brackets must not occupy the process for seconds."""
_HINT = "Send a JSON object with `model`."
_WS = rb"[ \t\n\r]*"
_OPEN = re.compile(rb"(?:\xef\xbb\xbf)?" + _WS + rb"\{" + _WS)
_MEMBER = re.compile(
    rb'("[^"]*+")' + _WS + rb":" + _WS + rb'("[^"]*+"|[^][{}",: \t\n\r]+|(?=[\[{]))' + _WS + rb"([,}]?)" + _WS
)
_AFTER = re.compile(_WS + rb"([,}])" + _WS)
_STRINGS = rb'(?:[^][{}"]*+"[^"]*+"){0,16}[^][{}"]*+'
_INSIDE = re.compile(  # up to 16 strings or containers of nothing but scalars, then brackets of one direction
    rb'(?:[^][{}"]*+(?:"[^"]*+"|[\[{]' + _STRINGS + rb'[]}])){0,16}[^][{}"]*+([\[{]+|[]}]+)?'
)


class Member(NamedTuple):
    """From its name's quote to the end of its value."""

    name: str
    start: int
    value: int
    end: int


def members(body: bytes) -> tuple[int, Iterator[Member]]:
    """Return where the first member begins, or would, and the members in order.

    Args:
        body: a JSON object.

    Raises:
        InvalidError: it is none, or has too many values; while the members are read.
    """
    text = body.replace(rb"\\", b"__").replace(rb"\"", b"__") if b"\\" in body else body
    opened = _OPEN.match(text)
    if opened is None:
        raise InvalidError("the body is no JSON object", hint=_HINT)
    return opened.end(), _walk(body, text, opened.end())


def _walk(body: bytes, text: bytes, at: int) -> Iterator[Member]:
    steps = 0
    while (found := _MEMBER.match(text, at)) is not None:
        value, end = found.span(2)
        follows, at = found[3], found.end()
        if value == end:
            end, steps = _end_of_nested(text, value, steps)
            after = _AFTER.match(text, end)
            follows, at = (after[1], after.end()) if after is not None else (b"", end)
        start, stop = found.span(1)
        yield Member(_name(body[start:stop]), start, value, end)
        steps = _counted(steps)
        if follows != b",":
            return


def _end_of_nested(text: bytes, at: int, steps: int) -> tuple[int, int]:
    """Return where the object or array that begins at `at` ends, and the steps so far."""
    depth = 1
    at += 1
    while (found := _INSIDE.match(text, at)) is not None and found.end() > at:
        steps = _counted(steps)
        at = found.end()
        begin = found.start(1)
        if begin < 0:
            continue
        if text[begin] in b"[{":
            depth += at - begin
        elif at - begin >= depth:
            return begin + depth, steps
        else:
            depth -= at - begin
    raise InvalidError("the body is no valid JSON: it ends too early", hint=_HINT)


def _counted(steps: int) -> int:
    if steps >= _MOST_STEPS:
        raise InvalidError(
            "the body has too many values for the gateway to change any",
            hint="Name the instance itself as `model`, or send fewer values.",
        )
    return steps + 1


def _name(quoted: bytes) -> str:
    if b"\\" in quoted:
        return str(json.loads(quoted))
    return quoted[1:-1].decode("utf-8", "surrogateescape")
