"""Memory that a simulated engine really holds, so that whoever watches the process sees it go and come back."""

import mmap

__all__ = ["Memory"]

_PAGE = 4096
_MIB = 1024 * 1024


class Memory:
    """Pages of this process.

    Attributes:
        bytes: held now.
    """

    def __init__(self, mib: int) -> None:
        self._size = mib * _MIB
        self._pages: mmap.mmap | None = None

    @property
    def bytes(self) -> int:
        return self._size if self._pages is not None else 0

    def take(self) -> None:
        """Hold the memory. What is held already stays."""
        if self._pages is not None or not self._size:
            return
        self._pages = mmap.mmap(-1, self._size)
        for at in range(0, self._size, _PAGE):  # a page that nobody wrote to is not there
            self._pages[at] = 1

    def drop(self) -> None:
        """Give it back to the system."""
        if self._pages is not None:
            self._pages.close()
            self._pages = None
