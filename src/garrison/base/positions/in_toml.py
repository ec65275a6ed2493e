"""Positions of the keys in a TOML file, which the standard parser does not report.

Only tables and keys that begin a line are found; anything inside an inline value has the position of its key.
"""

import re
from typing import Any

__all__ = ["toml_positions"]

Path = tuple[str | int, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_KEY = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_HEADER = re.compile(rf"[ \t]*(?P<open>\[\[?)[ \t]*(?P<key>{_KEY})[ \t]*\]")
_LINE = re.compile(rf"[ \t]*(?P<key>{_KEY})[ \t]*=")
_ONE = re.compile(_PART)
_QUOTES = re.compile(r'"""|\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#')


def toml_positions(text: str, content: dict[str, Any]) -> dict[Path, tuple[int, int]]:
    """Return (line, column), from 1, by path.

    `content` is the parse of `text`. Paths that are not in `content` are dropped, so a line that this scanner misreads
    costs a position and nothing else.
    """
    found: dict[Path, tuple[int, int]] = {(): (1, 1)}
    counts: dict[Path, int] = {}
    table: Path = ()
    inside: str | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if inside is None:
            header, key = _HEADER.match(line), _LINE.match(line)
            match = header or key
            if match:
                path = _path(match["key"], () if header else table, counts)
                if header:
                    if header["open"] == "[[":
                        counts[path] = counts.get(path, -1) + 1
                        path = (*path, counts[path])
                    table = path
                if _holds(content, path):
                    found.setdefault(path, (number, match.start("key") + 1))
        inside = _open_quotes(line, inside)
    return found


def _path(key: str, table: Path, counts: dict[Path, int]) -> Path:
    """Resolve a dotted key such as `a."b.c"` below `table`; a list of tables on the way stands for its last entry."""
    path = table
    for part in _ONE.findall(key):
        if path in counts:
            path = (*path, counts[path])
        path = (*path, part[1:-1] if part[0] in "\"'" else part)
    return path


def _holds(content: Any, path: Path) -> bool:
    for part in path:
        if isinstance(part, int):
            if not isinstance(content, list) or part >= len(content):
                return False
        elif not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True


def _open_quotes(line: str, inside: str | None) -> str | None:
    """Return the multi-line quotes that are still open after `line`, or None."""
    at = 0
    while True:
        if inside is not None:
            at = line.find(inside, at)
            if at < 0:
                return inside
            at, inside = at + 3, None
        match = _QUOTES.search(line, at)
        if match is None or match[0] == "#":  # a comment: quotes after it do not count
            return None
        at = match.end()
        if match[0] in ('"""', "'''"):
            inside = match[0]
