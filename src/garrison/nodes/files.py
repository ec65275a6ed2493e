"""Nodes on disk: one file each in `nodes/` of the data directory, mode 0600, since it holds a key."""

import json
from pathlib import Path
from typing import Protocol

from garrison.base.errors import ConflictError, InvalidError, NotFoundError
from garrison.base.files import write_atomic
from garrison.base.logs import logger
from garrison.base.redaction import know_secret
from garrison.nodes.node import Node, checked

__all__ = ["NodeFiles", "NodeStore"]

_MOST_BYTES = 64 * 1024

_log = logger(__name__)


class NodeStore(Protocol):
    """The seam to what is kept about nodes. Calls block on the disk."""

    def load(self) -> list[Node]:
        """Return every node, by name. One that cannot be read is logged and left out."""

    def add(self, node: Node) -> None:
        """Keep a node. Raises ConflictError if there is one of that name."""

    def remove(self, name: str) -> None:
        """Forget a node. Raises NotFoundError."""


class NodeFiles:
    """`NodeStore` in a directory."""

    def __init__(self, data_dir: Path) -> None:
        self._directory = data_dir / "nodes"

    def load(self) -> list[Node]:
        """As `NodeStore.load`."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                with path.open("rb") as file:
                    body = json.loads(file.read(_MOST_BYTES))
                node = checked(Node(path.stem, str(body["address"]), body.get("key")))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidError) as error:
                _log.error("a node cannot be read and is left out", path=str(path), error=str(error))
                continue
            if node.key:
                know_secret(node.key)
            found.append(node)
        return found

    def add(self, node: Node) -> None:
        """As `NodeStore.add`."""
        path = self._path(node.name)
        if path.exists():
            raise ConflictError(f"there is a node {node.name!r} already", hint=f"garrison nodes remove {node.name}")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"address": node.address, "key": node.key}), mode=0o600)

    def remove(self, name: str) -> None:
        """As `NodeStore.remove`."""
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            raise NotFoundError(f"there is no node {name!r}", hint="`garrison nodes list` shows them.") from None

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"
