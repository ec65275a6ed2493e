"""A name that is also a directory here: which of the two is meant, and a word about it."""

from dataclasses import dataclass
from pathlib import Path

from garrison.base.presence import exists, is_dir
from garrison.models.layout import Layout

__all__ = ["Meant", "meant"]

_EXPLICIT = ("/", "./", "../", "~")


@dataclass(frozen=True, slots=True)
class Meant:
    """What was typed for a model, as a path if a directory is meant; `word` says so where it could be a surprise."""

    text: str
    word: str | None = None


def meant(text: str, layout: Layout, *, here: Path | None = None) -> Meant:
    """Decide between a directory and a model of the same name.

    A bare name is first one of the library, then a directory here, then one of a hub. `ORG/NAME` is a directory if
    there is one.

    Args:
        here: the current directory, unless given.
    """
    if text.startswith(_EXPLICIT) or text in ("", ".", "..") or text.endswith("/") or not _is_dir(here, text):
        return Meant(text)
    if "/" not in text and (exists(layout.root / text) or exists(layout.hub / f"models--{text}")):
        return Meant(text, f"{text} is the model of the library; the directory here is ./{text}")
    return Meant(f"./{text}", f"{text} is the directory ./{text} here, so the model of that name is not looked for")


def _is_dir(here: Path | None, text: str) -> bool:
    try:
        return is_dir((here or Path()) / text)
    except (OSError, ValueError):  # too long for a file name, a null character
        return False
