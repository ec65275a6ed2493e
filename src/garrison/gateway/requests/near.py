"""Names close to one that does not exist."""

import difflib
from collections.abc import Sequence

__all__ = ["near_names"]

_LIKENESS = 0.6
_LONGEST = 100
_MOST_PARTS = 8
"""Of the name, that are looked for, each for the time it takes to search all names."""
_MOST_COMPARED = 48
"""Names of which the letters are counted, for about ten microseconds each."""
_MOST_RATED = 12
"""Of those, names that are aligned letter by letter."""


def near_names(wanted: str, names: Sequence[str], most: int = 3) -> list[str]:
    """Return up to `most` of `names` that may have been meant, the closest first.

    Takes about two milliseconds for ten thousand names: only those with something in common are compared.

    Args:
        names: those that whoever asks may see.
    """
    if not wanted or len(wanted) > _LONGEST:
        return []
    compared = names if len(names) <= _MOST_COMPARED else _sharing(wanted.lower(), names)
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted.lower())
    likely: list[tuple[float, str]] = []
    for name in compared:
        matcher.set_seq1(name.lower())
        if len(name) <= _LONGEST and matcher.real_quick_ratio() >= _LIKENESS:
            likely.append((-matcher.quick_ratio(), name))
    scored: list[tuple[float, str]] = []
    for bound, name in sorted(likely)[:_MOST_RATED]:
        matcher.set_seq1(name.lower())
        if -bound >= _LIKENESS and (likeness := matcher.ratio()) >= _LIKENESS:
            scored.append((-likeness, name))
    return [name for _, name in sorted(scored)[:most]]


def _sharing(wanted: str, names: Sequence[str]) -> list[str]:
    """Return names that share three letters in a row with `wanted`, those that share the rarest three first."""
    size = 3 if len(wanted) > 5 else 2
    joined = "\n".join(names)
    lowered = joined.lower()
    if len(lowered) != len(joined):  # a few letters have two in lower case
        lowered = joined
    starts = range(0, max(1, len(wanted) - size + 1), 1 + len(wanted) // _MOST_PARTS)
    parts = {wanted[at : at + size] for at in starts}
    found: dict[str, None] = {}
    for part in sorted(parts, key=lambda part: (lowered.count(part), part)):
        at = lowered.find(part)
        while at >= 0 and len(found) < _MOST_COMPARED:
            end = lowered.find("\n", at)
            end = len(lowered) if end < 0 else end
            found[joined[lowered.rfind("\n", 0, at) + 1 : end]] = None
            at = lowered.find(part, end)
    return list(found)
