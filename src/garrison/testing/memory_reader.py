"""The twin of what reads the memory of a device."""

from collections.abc import Sequence

from garrison.instances.memory_reader import Reading
from garrison.instances.room.values import Device
from garrison.preflight.gpu.probe import ProbeError

__all__ = ["MemoryReadings"]


class MemoryReadings:
    """`MemoryReader` with scripted readings.

    Args:
        readings: returned in order, the last one again and again; None raises ProbeError.

    Attributes:
        reads: how often it was read.
    """

    source = "twin"

    def __init__(self, *readings: Reading | Sequence[Device] | None) -> None:
        self.reads = 0
        self._readings = [one if one is None or isinstance(one, Reading) else Reading(tuple(one)) for one in readings]

    def read(self) -> Reading:
        """As `MemoryReader.read`."""
        self.reads += 1
        found = self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]
        if found is None:
            raise ProbeError("nothing here")
        return found
