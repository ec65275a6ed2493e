"""The known flag that was probably meant. Never one that means the opposite. Pure."""

import re
from collections.abc import Iterable

from garrison.engines.argv import flag_of
from garrison.engines.catalogue import Catalogue

__all__ = ["nearest_flag", "nearest_of", "opposite_of"]

_PREFIX = re.compile(r"(no|disable|without|enable|with|use)-")
_NEGATIVE = frozenset(("no", "disable", "without"))


def nearest_flag(catalogue: Catalogue, flag: str) -> str | None:
    """The known spelling closest to `flag`; None if none is close.

    What turns off is only ever close to what turns off: `--disable-log-requests` is near `--no-enable-log-requests`,
    although `--enable-log-requests` looks more alike.
    """
    wanted = flag_of(flag).partition(".")[0]
    stem = _meaning(wanted)[1]
    alike = _spellings(catalogue, flag, turns_off=_meaning(wanted)[0])
    stems: dict[str, str] = {}
    for spelling in alike:
        stems.setdefault(_meaning(spelling)[1], spelling)
    if stem in stems or opposite_of(catalogue, flag) is not None:
        return stems.get(stem)
    if (near := nearest_of(wanted, alike, cutoff=0.75)) is not None:
        return near
    near = nearest_of(stem, stems, cutoff=0.85)
    return None if near is None else stems[near]


def opposite_of(catalogue: Catalogue, flag: str) -> str | None:
    """The known spelling that means the opposite of `flag`: `--headless` for `--no-headless`; None if there is none."""
    turns_off, stem = _meaning(flag_of(flag))
    opposites = _spellings(catalogue, flag, turns_off=not turns_off)
    return next((spelling for spelling in opposites if _meaning(spelling)[1] == stem), None)


def nearest_of(wanted: str, known: Iterable[str], *, cutoff: float) -> str | None:
    """The most similar word of `known`; None if no similarity reaches `cutoff`, from 0 to 1."""
    import difflib  # lazily: only needed after a typo

    close = difflib.get_close_matches(wanted, list(known), 1, cutoff)
    return close[0] if close else None


def _spellings(catalogue: Catalogue, like: str, *, turns_off: bool) -> list[str]:
    """Known spellings with as many dashes as `like`, of flags that turn something off or of the others."""
    found = (spelling for option in catalogue.options for spelling in option.spellings)
    return [
        spelling
        for spelling in found
        if spelling.startswith("--") == like.startswith("--") and _meaning(spelling)[0] is turns_off
    ]


def _meaning(flag: str) -> tuple[bool, str]:
    """Whether a flag turns something off, and what: (True, `log-requests`) for `--no-enable-log-requests`."""
    stem = flag.lstrip("-")
    off = False
    while (found := _PREFIX.match(stem)) is not None:
        off ^= found[1] in _NEGATIVE
        stem = stem[found.end() :]
    return off, stem
