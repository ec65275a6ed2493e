"""Where the keys of a TOML file are: the standard parser does not say.

Tables and keys at the beginning of a line are found; what is inside a value on one line has its key's place.
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
    """(line, column) from 1, by path in `content`, which `text` was parsed to. A path that is not in `content` is
    never given, so a misread line costs a place and nothing else."""
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
    """`a."b.c"` below `table`; a list of tables on the way means its last one."""
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
    """The quotes of several lines that are open after `line`."""
    at = 0
    while True:
        if inside is not None:
            at = line.find(inside, at)
            if at < 0:
                return inside
            at, inside = at + 3, None
        match = _QUOTES.search(line, at)
        if match is None or match[0] == "#":
            return None
        at = match.end()
        if match[0] in ('"""', "'''"):
            inside = match[0]
