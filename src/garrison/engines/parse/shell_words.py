"""Split a pasted shell text into simple commands, without running a shell.

Quotes, backslashes, backslash-newlines and comments work as in a shell. What only a shell can expand (`$NAME`,
`$(...)`) or do (pipes, redirections) is rejected by name: a literal `$MODEL` in an argv would be worse than an error.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from garrison.base.errors import InvalidError

__all__ = ["split_commands"]

_BLANK = " \t"
_ENDS = ";\n"
_EXPANSION = re.compile(r"\$(?:[A-Za-z_0-9@*#?!$-]|\{|\()")


@dataclass(slots=True)
class _Cursor:
    text: str
    position: int = 0

    @property
    def current(self) -> str:
        return self.text[self.position] if self.position < len(self.text) else ""

    def looking_at(self, prefix: str) -> bool:
        return self.text.startswith(prefix, self.position)

    def take(self) -> str:
        character = self.current
        self.position += 1
        return character


def split_commands(text: str) -> list[list[str]]:
    """The words of each command in `text`. A trailing `&` is dropped.

    Raises:
        InvalidError: a quote is not closed, or the text needs a shell.
    """
    cursor = _Cursor(text)
    commands: list[list[str]] = [[]]
    while cursor.current:
        if cursor.current in _BLANK or cursor.looking_at("\r\n"):
            cursor.take()
        elif _skip_continuation(cursor):
            continue
        elif cursor.current in _ENDS:
            cursor.take()
            commands.append([])
        elif cursor.current == "#":
            while cursor.current and cursor.current != "\n":
                cursor.take()
        elif cursor.looking_at("&&"):
            cursor.position += 2
            commands.append([])
        elif cursor.current == "&" and not cursor.text[cursor.position + 1 :].lstrip(_BLANK).startswith((">", "&")):
            cursor.take()
            commands.append([])
        elif cursor.current in "|<>()&":
            raise _needs_shell(f"{cursor.current!r}")
        else:
            commands[-1].append(_word(cursor))
    return [command for command in commands if command]


def _word(cursor: _Cursor) -> str:
    start = cursor.position
    parts: list[str] = []
    quoted = False
    while cursor.current and cursor.current not in _BLANK + _ENDS + "|<>()&" and not cursor.looking_at("\r\n"):
        if _skip_continuation(cursor):
            continue
        if cursor.current in "'\"":
            quoted = True
            parts.append("".join(_single(cursor) if cursor.current == "'" else _double(cursor)))
        elif cursor.looking_at("$'") or cursor.looking_at('$"'):
            raise _needs_shell(f"{cursor.text[cursor.position : cursor.position + 2]!r}")
        elif cursor.current == "\\":
            cursor.take()
            quoted = True
            parts.append(cursor.take() or "\\")
        else:
            _refuse_expansion(cursor)
            parts.append(cursor.take())
    word = "".join(parts)
    if cursor.current in ("<", ">") and word.isdecimal() and not quoted:
        raise _needs_shell(f"'{word}{cursor.current}'")
    # Path.expanduser would drop a trailing slash and `./`; words are kept as they are.
    return os.path.expanduser(word) if cursor.text[start : start + 1] == "~" else word  # noqa: PTH111 - see above


def _single(cursor: _Cursor) -> Iterator[str]:
    opened = cursor.position
    cursor.take()
    while cursor.current != "'":
        if not cursor.current:
            raise _unterminated(cursor.text, opened)
        yield cursor.take()
    cursor.take()


def _double(cursor: _Cursor) -> Iterator[str]:
    opened = cursor.position
    cursor.take()
    while cursor.current != '"':
        if not cursor.current:
            raise _unterminated(cursor.text, opened)
        if cursor.current == "\\" and cursor.text[cursor.position + 1 : cursor.position + 2] in ("$", "`", '"', "\\"):
            cursor.take()
            yield cursor.take()
        elif not _skip_continuation(cursor):
            _refuse_expansion(cursor)
            yield cursor.take()
    cursor.take()


def _skip_continuation(cursor: _Cursor) -> bool:
    for form in ("\\\n", "\\\r\n"):
        if cursor.looking_at(form):
            cursor.position += len(form)
            return True
    return False


def _refuse_expansion(cursor: _Cursor) -> None:
    if cursor.current == "`":
        raise _needs_shell("a backtick")
    if _EXPANSION.match(cursor.text, cursor.position):
        rest = re.match(r"\$\w+|\$.", cursor.text[cursor.position :])
        raise _needs_shell(rest[0] if rest else "$")


def _needs_shell(what: str) -> InvalidError:
    return InvalidError(
        f"the command line contains {what}, which only a shell can interpret",
        hint="Paste only the engine's command, with the values filled in; quote literal characters.",
    )


def _unterminated(text: str, opened: int) -> InvalidError:
    line = text.count("\n", 0, opened) + 1
    return InvalidError(
        f"the quote opened in line {line} is not closed", hint="Close it, or escape it with a backslash."
    )
