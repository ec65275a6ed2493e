"""Merges several drafts into one: named entries are combined, and duplicates are errors."""

from collections.abc import Mapping, Sequence
from typing import Any

from garrison.base.documents import Path
from garrison.base.problems import Problems
from garrison.fleet.manifest.draft import Draft

__all__ = ["merge"]

_NAMED = {
    "instances": "instance",
    "targets": "target",
    "adapters": "adapter",
    "models": "model",
    "routes": "route",
    "profiles": "profile",
}


def merge(drafts: Sequence[Draft], problems: Problems) -> Draft:
    """Merge `drafts`. `stack` and `policy` may occur several times if they are equal; hooks are concatenated."""
    if len(drafts) == 1:
        return drafts[0]
    content: dict[str, Any] = {}
    places: dict[Path, str] = {}
    written: dict[Path, str] = {}
    scalars: dict[Path, str] = {}
    for draft in drafts:
        before = len(content.get("hooks", ()))
        # An entry that is declared twice keeps the positions of its first declaration.
        refused = {path for path in _join(content, draft) if _report(places, draft, path, problems)}
        for table, into in ((draft.places, places), (draft.written, written), (draft.scalars, scalars)):
            for path, value in table.items():
                if path[:1] not in refused and path[:2] not in refused:
                    into.setdefault(_moved(path, before), value)
    names = ", ".join(draft.name for draft in drafts)
    return Draft(names, content, places, written, scalars)


def _join(content: dict[str, Any], draft: Draft) -> list[Path]:
    """Add `draft` to `content`; return the paths that `content` already had."""
    twice: list[Path] = []
    for key, value in draft.content.items():
        held = content.get(key)
        if held is None:
            content[key] = value.copy() if isinstance(value, dict | list) else value
        elif key in _NAMED and isinstance(value, dict) and isinstance(held, dict):
            twice += [(key, name) for name in value if name in held]
            held.update({name: entry for name, entry in value.items() if name not in held})
        elif key == "hooks" and isinstance(value, list) and isinstance(held, list):
            held += value
        elif held != value:
            twice.append((key,))
    return twice


def _report(places: Mapping[Path, str], draft: Draft, path: Path, problems: Problems) -> bool:
    what = f"{_NAMED[str(path[0])]} {path[1]!r} is declared" if len(path) > 1 else f"{path[0]} is declared differently"
    text = f"{what} in {places.get(path)} and in {draft.where(path)}"
    problems.add(draft.where(path), path, text, "Keep one of the two.")
    return True


def _moved(path: Path, hooks: int) -> Path:
    """Shift the index of a hook by the number of `hooks` in earlier files."""
    if len(path) > 1 and path[0] == "hooks" and isinstance(path[1], int):
        return ("hooks", path[1] + hooks, *path[2:])
    return path
