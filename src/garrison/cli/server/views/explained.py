"""A decision about room."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from garrison.cli.views.page import Page, plain, sentence

__all__ = ["show_explained"]

_VERDICTS = {
    "fits": ("✓ fits", "green"),
    "evicts": ("↻ makes room", "yellow"),
    "waits": ("◐ waits", "yellow"),
    "never": ("✗ can never fit", "bold red"),
}


def show_explained(page: Page, name: str, found: Mapping[str, Any]) -> None:
    """Print the verdict and why, then where and at whose cost."""
    verdict = str(found.get("verdict"))
    word, style = _VERDICTS.get(verdict, (verdict, ""))
    page.entry(
        Text.assemble((f"{word}  ", style), (f"{plain(name)}  ", "bold")), Text(plain(str(found.get("text", ""))))
    )
    for title, key in (("on", "devices"), ("stops", "evicts"), ("drains", "drains")):
        if names := found.get(key):
            page.entry(Text(f"  {title:<7}", "dim"), Text(sentence(map(str, names), most=20)))
    if seconds := found.get("seconds"):
        page.entry(Text("  in     ", "dim"), Text(f"about {seconds:.0f} s"))
