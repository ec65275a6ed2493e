"""Progress of long work: steps, and bytes of a transfer. The views of it are the command line's.

For several listeners, or slow ones, see `broadcast`.
"""

from typing import Any, Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """`advanced` may be called from several threads at once; the other methods from one.

    The work waits for each call, so none may block for long.
    """

    def step(self, name: str, **facts: Any) -> None:
        """Report a step. `facts` are JSON-ready; a `message` among them is a sentence for people.

        A `wait` for another try has `cause` and `seconds`, and `attempt` of `tries` where those are counted.
        """

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        """Report the start of a transfer of `total` bytes, `done` of which are already there. `doing` is `downloading`,
        `copying`, `unpacking` or `hashing`."""

    def advanced(self, count: int) -> None:
        """Report `count` more bytes; negative if some must be transferred again."""

    def finished(self) -> None:
        """Report the end of the transfer, successful or not. Harmless if there is none."""


class Silent:
    def step(self, name: str, **facts: Any) -> None: ...
    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None: ...
    def advanced(self, count: int) -> None: ...
    def finished(self) -> None: ...
