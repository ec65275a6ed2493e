"""What the command line's library says of a wrong command line, in the words of this project."""

import re
from typing import Any

from garrison.base.invalid_values import in_our_words

__all__ = ["usage_message"]


def usage_message(error: Any) -> str:
    """Return the message of a Typer exception on one line, with arguments named as the help names them."""
    text = error.format_message()
    problems = getattr(error.__cause__, "errors", None)  # of pydantic, which judges the values of options
    for one in problems() if problems is not None else ():
        text = text.replace(one["msg"], in_our_words(one["type"], one["msg"], one.get("ctx")))
    line = " ".join(text.split())
    return re.sub(r"^Missing argument '(\w+)'", lambda found: f"Missing argument {found[1].upper()}", line)
