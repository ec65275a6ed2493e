"""Words that a page, a chat or an editor has changed on their way into a command line. Pure."""

import re
from collections.abc import Collection

from garrison.engines.argv import normal

__all__ = ["flag_and_value", "plain_dashes", "quoted"]

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
"""What editors make of hyphens: hyphen, no-break hyphen, figure, en and em dash, bar, minus, small and wide forms."""
_QUOTES = "\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f"
_HYPHENS = str.maketrans(dict.fromkeys(_DASHES, "-"))
_LEADING = re.compile(f"[-{_DASHES}]+")


def flag_and_value(word: str, known: Collection[str]) -> tuple[str, str] | None:
    """The known flag and its value in one word, `--max-model-len 4096` in quotes; None for any other word."""
    head, _, value = word.strip().partition(next((one for one in word.strip() if one.isspace()), " "))
    flag = head.rstrip(":")
    if not flag.startswith("-") or not value.strip() or normal(flag) not in known:
        return None
    return flag, value.strip()


def plain_dashes(word: str, known: Collection[str]) -> str | None:
    """The word with hyphens, if another dash stands in its flag; None if none does. A known spelling is preferred."""
    name, equals, value = word.partition("=")
    head, space, rest = name.partition(" ")
    found = _LEADING.match(head)
    if found is None or not any(dash in head for dash in _DASHES):
        return None
    bare = head[found.end() :].translate(_HYPHENS)
    if not bare:
        return None
    spellings = [f"--{bare}", f"-{bare}"]
    flag = next((one for one in spellings if normal(one) in known), spellings[0])
    return flag + space + rest + equals + value


def quoted(word: str) -> bool:
    """Whether typographic quotation marks stand at the ends of the word, where plain ones were meant."""
    return len(word) > 1 and (word[0] in _QUOTES or word[-1] in _QUOTES)
