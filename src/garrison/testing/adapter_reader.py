"""The twin of the simulator's access to the disk: adapters by path, without files."""

from dataclasses import dataclass, field

from garrison.sim.adapters import AdapterBrokenError, AdapterWeights

__all__ = ["MemoryAdapters"]


@dataclass(slots=True)
class MemoryAdapters:
    """`AdapterReader` over a dictionary.

    Attributes:
        files: path to weights, or to the message with which a load of it fails. Other paths hold no adapter.
        reads: how many reads were made.
    """

    files: dict[str, AdapterWeights | str] = field(default_factory=dict)
    reads: int = 0

    def put(self, path: str, digest: str, rank: int = 8) -> None:
        self.files[path] = AdapterWeights(digest, rank)

    def read(self, path: str) -> AdapterWeights:
        self.reads += 1
        found = self.files.get(path)
        if found is None:
            raise FileNotFoundError(path)
        if isinstance(found, str):
            raise AdapterBrokenError(found)
        return found
