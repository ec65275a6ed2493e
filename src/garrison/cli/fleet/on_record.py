"""Explanatory usage errors of commands that work from what was applied, and so take no manifest and no bare name."""

import re
from pathlib import PurePath

from typer.core import TyperCommand
from typer.exceptions import TyperException

from garrison.base.errors import UsageError

__all__ = ["OnRecord"]

_EXTRA = re.compile(r"unexpected extra argument(?:s|\(s\))? \((?P<words>.+)\)")
_MANIFESTS = (".yaml", ".yml", ".json", ".toml", ".pkl")
_CHOICES = {"--stack": "--stack {}", "--target": "--target {}", "--name": "--name {}", "--query": "--query 'target:{}'"}


class OnRecord(TyperCommand):
    """A command that answers a manifest or a bare name with the option to use instead."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]  # the types are private to Typer
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            taken = [option for param in self.params for option in param.opts]
            told = _told(error.format_message(), getattr(error, "option_name", ""), self.name or "", taken)
            if told is None:
                raise
            raise told from None


def _told(message: str, option: str, command: str, taken: list[str]) -> UsageError | None:
    """Return an error that names the right option, or None if the parser's own error says enough."""
    extra = _EXTRA.search(message)
    word = extra["words"].split(" ")[0] if extra else ""
    if option in ("-f", "--file") or PurePath(word).suffix in _MANIFESTS:
        ways = " `--stack NAME` selects one stack." if "--stack" in taken else ""
        return UsageError(
            f"`garrison {command}` takes no manifest; it works from what was applied",
            hint=f"Leave it out.{ways} `garrison plan` compares a manifest with what is served.",
        )
    if not word:
        return None
    ways = ", ".join(text.format(word) for name, text in _CHOICES.items() if name in taken)
    return UsageError(f"`garrison {command}` does not take the bare name {word!r}", hint=f"Did you mean {ways}?")
