"""What the command line's library says of a wrong command line, in the words of this project. Pure."""

import re

__all__ = ["in_our_words"]

_WORDS = (
    (r"Input should be greater than or equal to (\S+)", r"must be at least \1"),
    (r"Input should be less than or equal to (\S+)", r"must be at most \1"),
    (r"Input should be greater than (\S+)", r"must be above \1"),
    (r"Input should be less than (\S+)", r"must be below \1"),
    (r"Input should be a valid integer.*", "must be a whole number"),
    (r"Input should be a valid number.*", "must be a number"),
    (r"Input should be ", "must be "),
    (r"(?<=: )Value error, ", ""),
)


def in_our_words(message: str) -> str:
    """Return the message on one line, with arguments named as the help names them."""
    text = " ".join(message.split())
    for pattern, ours in _WORDS:
        text = re.sub(pattern, ours, text)
    return re.sub(r"^Missing argument '(\w+)'", lambda found: f"Missing argument {found[1].upper()}", text)
