"""Parsers of settings and flags, from text to value, with the rule in the error.

Each parser returns the value, or raises `ValueError` whose message completes the sentence
"NAME must be …".
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "Pairs",
    "Parser",
    "choice",
    "csv",
    "duration",
    "duration_text",
    "flag",
    "host",
    "integer",
    "limit",
    "number",
    "path",
    "port_range",
    "secret",
    "secrets",
    "size",
    "size_text",
    "text",
    "token",
    "word_flag",
    "words",
]

Parser = Callable[[str], Any]

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_HOST = re.compile(r"[A-Za-z0-9_.:%-]+\Z")


def text(*, whitespace: bool = True) -> Parser:
    def parse(raw: str) -> str:
        if not raw:
            raise ValueError("non-empty")
        if not whitespace and re.search(r"\s", raw):
            raise ValueError("free of white space")
        return raw

    return parse


def secret(raw: str) -> str:
    """Parse a secret: without white space at its ends, redacted from now on, and in no message."""
    from garrison.base.redaction import SecretValueError, secret_text  # few commands read a secret

    try:
        return secret_text(raw)
    except SecretValueError as error:
        raise ValueError(f"one line of text; it {error}") from None


def secrets(raw: str) -> tuple[str, ...]:
    """Parse secrets with commas between them."""
    return tuple(token(part) for part in raw.split(",") if part.strip())


def token(raw: str) -> str:
    """Parse a secret that libraries send in a header, which they encode as ASCII."""
    value = secret(raw)
    if not value.isascii():
        raise ValueError("ASCII text; check that it was copied whole and alone")
    return value


def integer(low: int | None = None, high: int | None = None) -> Parser:
    rule = "an integer" + _range(low, high)

    def parse(raw: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]+", raw.strip()):
            raise ValueError(rule)
        value = int(raw)
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError(rule)
        return value

    return parse


def number(low: float | None = None, *, above: float | None = None) -> Parser:
    rule = f"a number above {above:g}" if above is not None else "a number" + _range(low, None)

    def parse(raw: str) -> float:
        # float() also accepts nan, inf and 1_000, which are mistakes here.
        if not re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)", raw.strip()):
            raise ValueError(rule)
        value = float(raw)
        if (low is not None and value < low) or (above is not None and value <= above):
            raise ValueError(rule)
        return value

    return parse


def flag(raw: str) -> bool:
    """Parse the seed's `0 or 1`, and the words that people type."""
    word = raw.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("0 or 1")


def word_flag(raw: str) -> bool:
    """Parse the seed's `true/false/1/0/yes/no`."""
    try:
        return flag(raw)
    except ValueError:
        raise ValueError("true, false, 1, 0, yes or no") from None


def choice(allowed: Sequence[str]) -> Parser:
    """Parse one of `allowed`, in any case."""

    def parse(raw: str) -> str:
        if (word := raw.strip().lower()) not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return word

    return parse


def csv(allowed: tuple[str, ...] | None = None) -> Parser:
    """Parse `a, b,c` to `("a", "b", "c")`; empty parts are dropped."""

    def parse(raw: str) -> tuple[str, ...]:
        parts = tuple(part.strip() for part in raw.split(",") if part.strip())
        if allowed is not None and (unknown := [part for part in parts if part not in allowed]):
            raise ValueError(f"a comma-separated list of {', '.join(allowed)} (not {unknown[0]!r})")
        return parts

    return parse


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(unit: str = "s") -> Parser:
    """Parse `90s`, `30m`, `1.5h` to seconds. A bare number counts in `unit`."""
    example = {"s": "90s or 2m; a bare number is seconds", "m": "90s or 30m; a bare number is minutes"}[unit]

    def parse(raw: str) -> float:
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?", raw.strip())
        if found is None:
            raise ValueError(f"a duration, such as {example}")
        return float(found[1]) * _UNITS[found[2] or unit]

    return parse


def duration_text(seconds: float) -> str:
    """Format seconds in the largest unit that holds them whole, as `duration` reads them: `30m`, `90s`."""
    for unit in ("h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds:.0f}s" if seconds % 1 == 0 else f"{seconds:g}s"


def limit(raw: str) -> int | None:
    """Parse a limit: -1, or `none`, is no limit."""
    if raw.strip().lower() in ("-1", "none"):
        return None
    value: int = integer(0)(raw)
    return value


def port_range(raw: str) -> tuple[int, int]:
    """Parse `8000-9000`, or the two numbers with a comma between them."""
    found = re.fullmatch(r"\s*\[?\s*(\d{1,5})\s*[-,]\s*(\d{1,5})\s*\]?\s*", raw)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= 65535:
        raise ValueError("a range of ports, such as 8000-9000")
    return int(found[1]), int(found[2])


def words(raw: str) -> tuple[str, ...]:
    """Parse a command, as a shell would split it: `docker run --rm --gpus all vllm/vllm-openai`."""
    import shlex  # few commands read one

    try:
        found = tuple(shlex.split(raw))
    except ValueError as error:
        raise ValueError(f"a command; in this one: {str(error).lower()}") from None
    if not found:
        raise ValueError("a command")
    return found


class Pairs:
    """Parses `a=1,b=2` to `(("a", "1"), ("b", "2"))`, each value by `value`. The config file may have a mapping."""

    def __init__(self, value: Parser = str) -> None:
        self._value = value

    def __call__(self, raw: str) -> tuple[tuple[str, Any], ...]:
        found: dict[str, Any] = {}
        for part in filter(None, (one.strip() for one in raw.split(","))):
            name, equals, text = part.partition("=")
            if not equals or not name.strip():
                raise ValueError("NAME=VALUE pairs with commas between them")
            found[name.strip()] = self._value(text.strip())
        return tuple(found.items())

    def of_mapping(self, given: dict[Any, Any]) -> tuple[tuple[str, Any], ...]:
        """The same from a mapping, whose values may contain commas."""
        return tuple((str(name), self._value(str(one))) for name, one in given.items())


_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def size(raw: str) -> int:
    """Parse `14GiB`, `600MB` or a number of bytes."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)?b?", raw.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError("a size, such as 14GiB")
    return round(float(found[1]) * _BYTES[(found[2] or "").lower()])


def host(raw: str) -> str:
    """Parse an IP address or a host name; brackets around an IPv6 address are removed."""
    bare = raw.strip()
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    if not _HOST.match(bare):
        raise ValueError("an IP address or a host name")
    return bare


def path(raw: str) -> Path:
    if not raw:
        raise ValueError("a path")
    try:
        return Path(raw).expanduser()
    except RuntimeError:
        raise ValueError("a path; there is no such user") from None


def size_text(count: float) -> str:
    """Format a number of bytes for people: `602 KiB`, `1.4 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit in ("B", "KiB") or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    if low is not None:
        return f" of at least {low:g}"
    return ""
