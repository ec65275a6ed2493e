"""What a command reads from standard input, where a file or an argument is `-`."""

import sys

from garrison.base.errors import InvalidError

__all__ = ["standard_input"]


def standard_input(most: int) -> str:
    """At most `most` characters.

    Raises:
        InvalidError: it is no text in this locale's encoding.
    """
    try:
        return sys.stdin.read(most)
    except UnicodeDecodeError:
        raise InvalidError(
            f"standard input is no {sys.stdin.encoding} text", hint="Set PYTHONIOENCODING=utf-8 for UTF-8."
        ) from None
