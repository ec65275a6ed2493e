"""What a view writes, as text without colours."""

import io
import re
from collections.abc import Callable

from rich.console import Console

from garrison.cli.views.page import Page

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(show: Callable[[Page], None], width: int = 80, *, color: bool = False) -> str:
    out = io.StringIO()
    show(Page(Console(file=out, width=width, force_terminal=True, highlight=False, color_system="standard")))
    return out.getvalue() if color else ESCAPE.sub("", out.getvalue())


def in_a_pipe(show: Callable[[Page], None]) -> str:
    out = io.StringIO()
    show(Page(out=out))
    return out.getvalue()
