"""The twins of what the nodes act on: their files, and the servers themselves."""

from typing import Any

from garrison.base.errors import ConflictError, NotFoundError, UnreachableError
from garrison.nodes.node import Node
from garrison.nodes.watch import NodeAnswer

__all__ = ["MemoryNodeStore", "MemoryNodes"]


class MemoryNodeStore:
    """`NodeStore` in memory."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {one.name: one for one in nodes}

    def load(self) -> list[Node]:
        return [self.nodes[name] for name in sorted(self.nodes)]

    def add(self, node: Node) -> None:
        if node.name in self.nodes:
            raise ConflictError(f"there is a node {node.name!r} already")
        self.nodes[node.name] = node

    def remove(self, name: str) -> None:
        if self.nodes.pop(name, None) is None:
            raise NotFoundError(f"there is no node {name!r}")


class MemoryNodes:
    """`AskNode` that answers what a test says.

    Attributes:
        answers: by node; one without an answer is out of reach.
        calls: node, method, path and body of each management call.
    """

    def __init__(self) -> None:
        self.answers: dict[str, NodeAnswer] = {}
        self.calls: list[tuple[str, str, str, Any]] = []

    async def __call__(self, node: Node) -> NodeAnswer:
        if node.name not in self.answers:
            raise UnreachableError(f"{node.address} does not answer")
        return self.answers[node.name]

    async def call(self, node: Node, method: str, path: str, body: Any) -> tuple[int, Any]:
        if node.name not in self.answers:
            raise UnreachableError(f"{node.address} does not answer")
        self.calls.append((node.name, method, path, body))
        return 201, {"name": path.rpartition("/")[2]}
