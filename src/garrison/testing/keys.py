"""The twin of the verbs on keys: the real ones, on a store in memory."""

from garrison.access.keys import Keys
from garrison.access.tokens import TokenHasher
from garrison.base.clock import Clock
from garrison.testing.clock import FakeClock
from garrison.testing.store import MemoryStore
from garrison.testing.thread_pool import DirectPool

__all__ = ["MemoryKeys"]


class MemoryKeys(Keys):
    """`KeyOperations`, and the check of tokens, without a database, a file or a thread.

    Attributes:
        store: holds the keys.
    """

    def __init__(self, clock: Clock | None = None, *, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        super().__init__(self.store, TokenHasher(b"k" * 32), pool=DirectPool(), clock=clock or FakeClock())
