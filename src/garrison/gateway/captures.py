"""The latest captures, up to a number of them. Pure."""

from collections import OrderedDict

from garrison.gateway.link.reports import CaptureValue

__all__ = ["Captures"]


class Captures:
    """The captures by the id of their request.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: OrderedDict[str, CaptureValue] = OrderedDict()

    def add(self, one: CaptureValue) -> None:
        """Keep a capture, in place of the oldest one if there are too many."""
        self._found[one.id] = one
        self.resize(self._most)

    def resize(self, most: int) -> None:
        """Keep another number of them."""
        self._most = most
        while len(self._found) > most:
            self._found.popitem(last=False)

    def find(self, id: str) -> CaptureValue | None:
        """Return the capture of a request; None if there is none."""
        return self._found.get(id)
