"""The twin of docker and podman."""

from collections.abc import Mapping

from garrison.base.errors import EngineMissingError
from garrison.launch.containers.program import ContainerStatus

__all__ = ["MemoryContainers"]


class MemoryContainers:
    """`Containers` without a program.

    Attributes:
        known: each container with its labels.
        calls: `stop ID SECONDS` and `remove ID`, in order.
        fails: raised by every call while it is set.
        appears: containers that come into being after so many calls of `find`, as one does whose start was killed.
    """

    def __init__(self) -> None:
        self.known: dict[str, tuple[Mapping[str, str], ContainerStatus]] = {}
        self.calls: list[str] = []
        self.fails: EngineMissingError | None = None
        self.appears: dict[int, tuple[Mapping[str, str], ContainerStatus]] = {}
        self._asked = 0

    def add(self, status: ContainerStatus, labels: Mapping[str, str]) -> None:
        self.known[status.id] = (labels, status)

    async def find(self, labels: Mapping[str, str]) -> tuple[ContainerStatus, ...]:
        self._may_fail()
        self._asked += 1
        if self._asked in self.appears:
            found, status = self.appears.pop(self._asked)
            self.add(status, found)
        return tuple(status for own, status in self.known.values() if labels.items() <= own.items())

    async def stop(self, container: str, seconds: float) -> None:
        self._may_fail()
        self.calls.append(f"stop {container} {seconds:g}")
        if container in self.known:
            labels, _ = self.known[container]
            self.known[container] = (labels, ContainerStatus(container, running=False))

    async def remove(self, container: str) -> None:
        self._may_fail()
        self.calls.append(f"remove {container}")
        self.known.pop(container, None)

    def _may_fail(self) -> None:
        if self.fails is not None:
            raise self.fails
