"""Split a pasted shell text into simple commands, without running a shell.

Quotes, backslashes, backslash-newlines and comments work as in a shell, and so do variables that the text itself sets.
Where the output goes (`> log 2>&1`, `| tee log`) does not change an engine and is left out, with a note. Whatever else
only a shell can expand (`$NAME`, `$(...)`) or do is rejected by name: a literal `$MODEL` in an argv would be worse than
an error.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from garrison.base.errors import InvalidError

__all__ = ["split_commands"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BLANK = " \t"
_ENDS = ";\n"
_EXPANSION = re.compile(r"\$(?:[A-Za-z_0-9@*#?!$-]|\{|\()")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)\Z", re.DOTALL)
_PASSED = re.compile(
    r"""(--env=|-e=?)?(?P<quote>["']?)(?P<name>[A-Za-z_]\w*)=(?P<inner>"?)"""
    r"""\$(?:(?P=name)|\{(?P=name)\})(?P=inner)(?P=quote)(?=[\s;&|]|\Z)"""
)
"""A variable with the value that it has already: `HF_TOKEN=$HF_TOKEN`, `--env "HF_TOKEN=$HF_TOKEN"`."""
_REDIRECTION = re.compile(r"(?:\d+|&)?(?:>>|>\||>&|<&|<>|>|<)(?![<>(])")
_FLAG_LINE = re.compile(r"\n\s*(?=(?P<flag>--?[A-Za-z][\w.-]*))")
_SINKS = _names("awk cat grep less logger more multilog rotatelogs sed systemd-cat tee ts")
"""Programs that read the output of another one."""


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


def split_commands(text: str, notes: list[str] | None = None) -> list[list[str]]:
    """The words of each command in `text`. A trailing `&` is dropped.

    Args:
        notes: gets a sentence for each part that was left out.

    Raises:
        InvalidError: a quote is not closed, or the text needs a shell.
    """
    return _Splitter(_Cursor(text), [] if notes is None else notes).commands()


class _Splitter:
    def __init__(self, cursor: _Cursor, notes: list[str]) -> None:
        self._cursor = cursor
        self._notes = notes
        self._commands: list[list[str]] = [[]]
        self._piped_at: int | None = None
        self._values: dict[str, str] = {}

    def commands(self) -> list[list[str]]:
        cursor = self._cursor
        while cursor.current:
            if cursor.current in _BLANK or cursor.looking_at("\r\n"):
                cursor.take()
            elif _skip_continuation(cursor) or self._leave_out_line_break():
                continue
            elif cursor.current in _ENDS:
                self._end(1)
            elif cursor.current == "#":
                while cursor.current and cursor.current != "\n":
                    cursor.take()
            elif cursor.looking_at("&&"):
                self._end(2)
            elif redirection := _REDIRECTION.match(cursor.text, cursor.position):
                self._leave_out_redirection(redirection)
            elif cursor.current == "&":
                self._end(1)
            elif cursor.current == "|" and not cursor.looking_at("||"):
                self._begin_pipe()
            elif cursor.looking_at("||") or cursor.current in "<>()":
                refused = re.match(r"\|\||<<<|<<|[<>]\(|.", cursor.text[cursor.position :])
                raise _needs_shell(repr(refused[0] if refused else cursor.current))
            elif not self._leave_out_passed():
                self._commands[-1].append(_word(cursor, self._values))
        self._end(0)
        return [command for command in self._commands if command]

    def _end(self, characters: int) -> None:
        """End the command, and remember what it sets if it does nothing else."""
        if self._piped_at is not None:
            self._leave_out_pipe(self._piped_at)
        command = self._commands[-1]
        found = [_ASSIGNMENT.match(word) for word in (command[1:] if command[:1] == ["export"] else command)]
        if all(found):
            self._values |= {match[1]: match[2] for match in found if match}
        self._cursor.position += characters
        self._commands.append([])

    def _leave_out_line_break(self) -> bool:
        """Pass over a line break before a flag: no command begins with one, and pages lose backslashes."""
        found = _FLAG_LINE.match(self._cursor.text, self._cursor.position)
        if found is None or not self._commands[-1] or self._piped_at is not None:
            return False
        self._cursor.position = found.end()
        self._notes.append(f"the line that begins with {found['flag']} was read as part of the one above it")
        return True

    def _leave_out_redirection(self, found: re.Match[str]) -> None:
        cursor = self._cursor
        cursor.position = found.end()
        while cursor.current and cursor.current in _BLANK:
            cursor.take()
        _skip_word(cursor)
        self._notes.append(f"the redirection `{cursor.text[found.start() : cursor.position]}` was left out")

    def _begin_pipe(self) -> None:
        if self._piped_at is not None:
            self._leave_out_pipe(self._piped_at)
        self._piped_at = self._cursor.position
        self._cursor.position += 2 if self._cursor.looking_at("|&") else 1
        self._commands.append([])

    def _leave_out_pipe(self, begun: int) -> None:
        """Drop the command that reads the output of the one before it."""
        self._piped_at = None
        words = self._commands.pop()
        if not words or PurePosixPath(words[0]).name not in _SINKS:
            raise _needs_shell(f"'|' to {words[0]}" if words else "'|'")
        self._notes.append(f"`{self._cursor.text[begun : self._cursor.position].strip()}` was left out")

    def _leave_out_passed(self) -> bool:
        """Take `NAME=$NAME`, where that is a variable of the command or of its container: it has the value already."""
        cursor, command = self._cursor, self._commands[-1]
        found = _PASSED.match(cursor.text, cursor.position)
        if found is None or found["name"] in self._values:
            return False
        option = found[1] or ""
        leading = not option and all(_ASSIGNMENT.match(word) or word in ("export", "env", "sudo") for word in command)
        if not (leading or option or command[-1:] in (["-e"], ["--env"])):
            return False
        if not leading:
            command += [f"{option}{found['name']}"]
        cursor.position = found.end()
        self._notes.append(f"{found['name']} has the value that it has here")
        return True


def _word(cursor: _Cursor, values: Mapping[str, str]) -> str:
    start = cursor.position
    parts: list[str] = []
    while cursor.current and cursor.current not in _BLANK + _ENDS + "|<>()&" and not cursor.looking_at("\r\n"):
        if _skip_continuation(cursor):
            continue
        if cursor.current in "'\"":
            parts.append("".join(_single(cursor) if cursor.current == "'" else _double(cursor, values)))
        elif cursor.looking_at("$'") or cursor.looking_at('$"'):
            raise _needs_shell(f"{cursor.text[cursor.position : cursor.position + 2]!r}")
        elif cursor.current == "\\":
            cursor.take()
            parts.append(cursor.take() or "\\")
        else:
            parts.append(_expanded(cursor, values, quoted=False) or cursor.take())
    word = "".join(parts)
    # Path.expanduser would drop a trailing slash and `./`; words are kept as they are.
    return os.path.expanduser(word) if cursor.text[start : start + 1] == "~" else word  # noqa: PTH111 - see above


def _skip_word(cursor: _Cursor) -> None:
    """Pass over a word whose meaning does not matter, with the quotes and the `$(...)` in it."""
    depth, quote = 0, ""
    while cursor.current:
        character = cursor.current
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif depth == 0 and (character in _BLANK + _ENDS + "|<>&" or cursor.looking_at("\r\n")):
            # `2>&1` has been matched up to `&`; what follows is the number.
            return
        cursor.take()


def _single(cursor: _Cursor) -> Iterator[str]:
    opened = cursor.position
    cursor.take()
    while cursor.current != "'":
        if not cursor.current:
            raise _unterminated(cursor.text, opened)
        yield cursor.take()
    cursor.take()


def _double(cursor: _Cursor, values: Mapping[str, str]) -> Iterator[str]:
    opened = cursor.position
    cursor.take()
    while cursor.current != '"':
        if not cursor.current:
            raise _unterminated(cursor.text, opened)
        if cursor.current == "\\" and cursor.text[cursor.position + 1 : cursor.position + 2] in ("$", "`", '"', "\\"):
            cursor.take()
            yield cursor.take()
        elif not _skip_continuation(cursor):
            yield _expanded(cursor, values, quoted=True) or cursor.take()
    cursor.take()


def _skip_continuation(cursor: _Cursor) -> bool:
    for form in ("\\\n", "\\\r\n"):
        if cursor.looking_at(form):
            cursor.position += len(form)
            return True
    return False


def _expanded(cursor: _Cursor, values: Mapping[str, str], *, quoted: bool) -> str:
    """The value of a variable that the text has set, taken; nothing if none is named here.

    Raises:
        InvalidError: only a shell knows the value, or what becomes of it without quotes.
    """
    found = _VARIABLE.match(cursor.text, cursor.position)
    value = values.get(found[1] or found[2]) if found is not None else None
    if found is not None and value and (quoted or not re.search(r"[\s*?\[]", value)):
        cursor.position = found.end()
        return value
    if cursor.current == "`":
        raise _needs_shell("a backtick")
    if _EXPANSION.match(cursor.text, cursor.position):
        rest = re.match(r"\$\{\w+[^}]*\}|\$\w+|\$.", cursor.text[cursor.position :])
        raise _needs_shell(rest[0] if rest else "$")
    return ""


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
