"""The hint for a name that is not known: those it may have been meant as, and a few others. Pure."""

import difflib
from collections.abc import Iterable

__all__ = ["known_names"]

_MOST = 10
_LIKENESS = 0.6


def known_names(word: str, known: Iterable[str], lead: str = "On record") -> str:
    """Return a sentence with at most ten of `known`, those like `word` first, and the number of the others.

    Args:
        lead: what the list begins with.
    """
    names = list(dict.fromkeys(known))
    if not names:
        return f"{lead}: none."
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(name.lower(), []).append(name)
    close = [one for key in difflib.get_close_matches(word.lower(), folded, _MOST, _LIKENESS) for one in folded[key]]
    shown = list(dict.fromkeys((*close, *names)))[:_MOST]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    meant = f"Did you mean {close[0]!r}? " if close else ""
    return f"{meant}{lead}: {', '.join(shown)}{more}."
