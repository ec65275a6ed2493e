"""Untrusted regular expressions, matched in time linear in the text.

Python's `re` backtracks, so one line of an adapter's config could keep a thread busy for years. Python therefore only
parses a pattern, which decides its meaning and whether it is valid; the parsed pattern is written out again in the
common subset of both languages and matched by RE2. The original text cannot be passed to RE2, which reads `a{,3}`,
`[[:alpha:]_]`, `\\12` and `a**` differently from Python without an error.

Parsing is safe and compiling is not: `re.compile` visits every character of a range if case is ignored, so a few
kilobytes of pattern can take an hour, while parsing the longest pattern allowed here takes milliseconds.
"""

import importlib
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

__all__ = ["MAX_PATTERN", "MAX_TEXT", "Allowance", "Pattern", "PatternError"]

MAX_PATTERN = 16 * 1024
"""Characters of a pattern. Trainers that list every module by name write a few thousand."""
MAX_TEXT = 512
"""Characters of a text; names of modules have a few dozen."""
_MAX_MEMORY = 1024 * 1024
_SECONDS = 5.0
_WARNINGS = threading.Lock()
_CATEGORIES = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}
_ANCHORS = {
    "AT_BEGINNING": r"\A",
    "AT_BEGINNING_STRING": r"\A",
    "AT_END": r"\z",
    "AT_END_STRING": r"\z",
    "AT_BOUNDARY": r"\b",
    "AT_NON_BOUNDARY": r"\B",
}
_BEYOND = {
    "ASSERT": "looks ahead or behind",
    "ASSERT_NOT": "looks ahead or behind",
    "GROUPREF": "refers to a group",
    "GROUPREF_EXISTS": "refers to a group",
    "GROUPREF_IGNORE": "refers to a group",
    "ATOMIC_GROUP": "has an atomic group",
    "POSSESSIVE_REPEAT": "has a possessive repetition",
}


class PatternError(ValueError):
    """Python's `re` does not accept `pattern` either. The message says why."""

    def __init__(self, pattern: str, why: str) -> None:
        super().__init__(why)
        self.pattern = pattern


class _BeyondError(Exception):
    """The pattern is valid, but cannot be matched in linear time. The message completes "it …"."""


class Allowance:
    """The time that matching may take, shared by all the patterns of one file.

    A single match is bounded by the sizes allowed here, so checking the clock between matches is enough.

    Args:
        seconds: from now on.
        monotonic: seconds from an arbitrary start.
    """

    def __init__(self, seconds: float = _SECONDS, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._end = monotonic() + seconds

    def spent(self) -> bool:
        return self._monotonic() >= self._end


class Pattern:
    """A pattern to match.

    Args:
        text: in the syntax of Python's `re`.
        after: a trusted pattern to put before it.

    Attributes:
        beyond: why it cannot be matched, as the end of the sentence "the pattern …"; None if it can.

    Raises:
        PatternError: Python's `re` would not accept `text` either.
    """

    __slots__ = ("_compiled", "beyond")

    def __init__(self, text: str, *, after: str = "") -> None:
        self.beyond: str | None = None
        self._compiled: Any = None
        try:
            self._compiled = _compile(after + _translated(text, alone=not after))
        except _BeyondError as error:
            self.beyond = str(error)

    def matches(self, text: str) -> bool | None:
        """Whether all of `text` matches, as with `re.fullmatch`; None if that cannot be decided.

        Only printable ASCII is matched: for such text RE2 and `re` agree on `.`, `$`, `\\w`, `\\b` and case.
        """
        if self._compiled is None or not 0 < len(text) <= MAX_TEXT or not (text.isascii() and text.isprintable()):
            return None
        return self._compiled.fullmatch(text) is not None


def _compile(text: str) -> Any:
    import re2  # lazily: most commands never see a pattern

    options = re2.Options()
    options.max_mem = _MAX_MEMORY
    options.log_errors = False  # they would go to standard error
    options.never_capture = True
    try:
        return re2.compile(text, options=options)
    except re2.error:
        raise _BeyondError("repeats too much or is nested too deeply") from None


def _translated(text: str, *, alone: bool) -> str:
    if len(text) > MAX_PATTERN:
        raise _BeyondError(f"is longer than {MAX_PATTERN} characters")
    try:
        tree = _parse(text)
        ignore_case = bool(tree.state.flags & re.IGNORECASE)
        if not alone and tree.state.flags & ~re.UNICODE:
            raise _BeyondError("sets a flag, and Python takes flags only at the start of a whole pattern")
        body = _sequence(tree, ignore_case)
    except RecursionError:
        raise _BeyondError("is nested too deeply") from None
    return f"(?i:{body})" if ignore_case else f"(?:{body})"


def _parse(text: str) -> Any:
    # Python warns on standard error about syntax that a later version may read differently.
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _parser().parse(text)
        except (re.error, ValueError, OverflowError) as error:
            raise PatternError(text, str(error)[:100]) from None


@cache
def _parser() -> Any:
    """The first half of `re.compile`. It is undocumented, but the only parser that agrees with `re` on every pattern.
    Its tree has not changed since Python 3.11; new operations are rejected below."""
    return importlib.import_module("re._parser")


def _sequence(items: Iterable[Any], ignore_case: bool) -> str:
    return "".join(_item(str(operation), argument, ignore_case) for operation, argument in items)


def _item(operation: str, argument: Any, ignore_case: bool) -> str:
    match operation:
        case "LITERAL":
            return _character(argument, ignore_case)
        case "NOT_LITERAL":
            return f"[^{_character(argument, ignore_case)}]"
        case "ANY":
            return "."
        case "IN":
            return _class(argument, ignore_case)
        case "BRANCH":
            return "(?:" + "|".join(_sequence(branch, ignore_case) for branch in argument[1]) + ")"
        case "SUBPATTERN":
            _, added, removed, body = argument
            inner = (ignore_case or bool(added & re.IGNORECASE)) and not removed & re.IGNORECASE
            return f"(?{'i' if inner else '-i'}:{_sequence(body, inner)})"
        case "MAX_REPEAT" | "MIN_REPEAT":  # which of the two makes no difference to whether it matches
            low, high, body = argument
            most = "" if high == _parser().MAXREPEAT else high
            return f"(?:{_sequence(body, ignore_case)}){{{low},{most}}}"
        case "AT" if str(argument) in _ANCHORS:
            return _ANCHORS[str(argument)]
    raise _BeyondError(_BEYOND.get(operation, "uses syntax that Garrison does not know"))


def _class(entries: list[tuple[Any, Any]], ignore_case: bool) -> str:
    inside = []
    for operation, argument in entries:
        match str(operation):
            case "NEGATE":
                inside.append("^")
            case "LITERAL":
                inside.append(_character(argument, ignore_case))
            case "RANGE":
                low, high = argument
                inside.append(f"{_character(low, ignore_case)}-{_character(high, ignore_case)}")
            case "CATEGORY":
                name = str(argument).removeprefix("CATEGORY_")
                escape = _CATEGORIES[name.removeprefix("NOT_")]
                inside.append(escape.upper() if name.startswith("NOT_") else escape)
            case _:
                raise _BeyondError("uses syntax that Garrison does not know")
    return f"[{''.join(inside)}]"


def _character(code: int, ignore_case: bool) -> str:
    if code > 127 and ignore_case:
        raise _BeyondError("ignores the case of letters that are not ASCII")
    if 0xD800 <= code < 0xE000:
        raise _BeyondError("holds half a character")
    return chr(code) if code < 128 and chr(code).isalnum() else f"\\x{{{code:x}}}"
