"""The gate for text from outside: what a terminal, a page or a log shows holds no control characters."""

__all__ = ["plain"]


def plain(text: str) -> str:
    """Replace control characters, so that a name on a server cannot move the cursor or start a line of its own."""
    return (
        text
        if text.isprintable()
        else "".join(sign if sign.isprintable() else " " if sign.isspace() else "�" for sign in text)
    )
