"""The output of the fleet's views.

On a terminal, long lines wrap with a hanging indent; in a pipe they stay whole, for grep. Text from servers and
manifests is shown without control characters.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from garrison.base.output.plain_text import plain

__all__ = ["Page", "counted", "plain", "sentence", "shortened"]

_LONGEST_LINE = 1_000_000
_COMMAND = re.compile(r"`[^`]+`\S?")
_UNBROKEN = "\ue000"
"""Stands for a blank where a line must not end. Private use: `plain` leaves none in a text."""
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


class Page:
    """A console that views write to.

    Attributes:
        wraps: whether the output is a terminal, so that lines are wrapped to its width.
    """

    def __init__(self, console: Console | None = None, *, out: TextIO | None = None) -> None:
        self.console = console or Console(file=out, highlight=False)
        self.wraps = self.console.is_terminal
        if not self.wraps:
            self.console = _for_a_pipe(self.console)

    @property
    def width(self) -> int:
        """The width in columns."""
        return self.console.width

    def blank(self) -> None:
        """Print an empty line."""
        self.console.print()

    def line(self, *parts: tuple[str, str] | str, indent: int = 0) -> None:
        """Print parts, each text or text with a style; continuation lines are indented to the last part."""
        head = Text(" " * indent)
        for part in parts[:-1]:
            head.append_text(_styled(part))
        self.entry(head, _styled(parts[-1]))

    def entry(self, head: Text, body: Text) -> None:
        """Print `head` followed by `body`; continuation lines start below the body.

        A wide head would leave the body no room, so the body then starts on a line of its own with a smaller indent.
        """
        for one in self.laid_out(head, body):
            self.console.print(one, soft_wrap=not self.wraps)

    def laid_out(self, head: Text, body: Text) -> list[Text]:
        """Return the lines that `entry` prints."""
        if not self.wraps or not body:
            return [_trimmed(head + body)]
        indent = head.cell_len if head.cell_len <= self.width // 2 else min(8, self.width // 4)
        if head.cell_len + body.cell_len <= self.width:
            return [_trimmed(head + body)]
        if indent != head.cell_len:
            # The head is too wide to share its line; the body follows below it.
            return [_trimmed(head), *self.laid_out(Text(" " * indent), body)]
        lines = _wrapped(body, self.console, max(10, self.width - indent))
        first, *rest = lines
        return [_trimmed(one) for one in (head + first, *(Text(" " * indent) + one for one in rest))]

    def flow(self, head: Text, items: Sequence[Text]) -> None:
        """Print items side by side; an item that fits on a line is not split."""
        room = max(10, self.width - head.cell_len)
        lines: list[Text] = []
        for item in items:
            if lines and self.wraps and lines[-1].cell_len + 3 + item.cell_len > room:
                lines.append(Text())
            if not lines:
                lines.append(Text())
            if lines[-1]:
                lines[-1].append("   ")
            lines[-1].append_text(item)
        for number, line in enumerate(lines):
            self.entry(Text(" " * head.cell_len) if number else head, line)

    def heading(self, title: Text) -> None:
        """Print a title in a rule across the terminal, or on a line of its own in a pipe."""
        if not self.wraps:
            self.console.print(title)
            return
        self.console.print(Rule(Text("── ", "dim") + title, align="left", style="dim", characters="─"))

    def card(self, title: Text, lines: Sequence[tuple[Text, Text]], *, style: str, indent: int) -> None:
        """Print a title and lines in a frame on a terminal, indented in a pipe."""
        if not self.wraps:
            self.entry(Text(" " * indent), title)
            for head, body in lines:
                self.entry(Text(" " * (indent + 2)) + head, body)
            return
        # Laid out here at the width inside the frame, because Rich's own wrapping has no hanging indent.
        inner = Page(Console(width=max(20, self.width - indent - 4), force_terminal=True))
        laid: list[Text] = []
        for head, body in lines:
            laid += inner.laid_out(head, body)
        panel = Panel(Text("\n").join(laid), title=title, title_align="left", border_style=style, padding=(0, 1))
        self.print(Padding(panel, (0, 0, 0, indent)))

    def flush(self) -> None:
        """Flush the output, so that a journal gets the line now."""
        self.console.file.flush()

    def print(self, what: RenderableType) -> None:
        """Print a Rich renderable as it is."""
        self.console.print(what)


def shortened(text: str) -> str:
    """Apply `plain`, and cut digests to twelve digits: enough to compare, and `--json` has all of them."""
    return _DIGEST.sub(r"\1…", plain(text))


def counted(number: int, one: str, many: str | None = None) -> str:
    """Format a number with its noun: `1 target`, `2,000 targets`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def sentence(names: Iterable[str], most: int = 5) -> str:
    """Join names, at most `most` of them: `a, b and 3 more`."""
    known = [plain(name) for name in names]
    if len(known) <= most:
        return ", ".join(known)
    return f"{', '.join(known[:most])} and {len(known) - most:,} more"


def _wrapped(body: Text, console: Console, width: int) -> list[Text]:
    """Wrap a text, but not within a command that fits on a line: it is meant to be pasted."""
    whole = [one for one in _COMMAND.finditer(body.plain) if one.end() - one.start() <= width]
    if not whole:
        return list(body.wrap(console, width, overflow="fold"))
    kept = body.copy()
    text = list(body.plain)
    for one in whole:
        text[one.start() : one.end()] = one[0].replace(" ", _UNBROKEN)
    kept.plain = "".join(text)
    lines = list(kept.wrap(console, width, overflow="fold"))
    for line in lines:
        line.plain = line.plain.replace(_UNBROKEN, " ")
    return lines


def _trimmed(line: Text) -> Text:
    trimmed = line.copy()
    trimmed.rstrip()
    return trimmed


def _styled(part: tuple[str, str] | str) -> Text:
    return Text(plain(part)) if isinstance(part, str) else Text(plain(part[0]), part[1])


def _for_a_pipe(console: Console) -> Console:
    # A width that no line reaches: Rich fits tables and panels to the width even where text is not wrapped.
    return Console(file=console.file, highlight=False, width=_LONGEST_LINE, color_system=None)
