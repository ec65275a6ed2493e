"""What is known about a node. Values only."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from garrison.base.errors import InvalidError

__all__ = ["Node", "NodeView", "Reach", "checked"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}\Z")

Reach = Literal["unknown", "reachable", "unreachable", "unusable"]
"""`unusable`: something answers there, but refuses the key or is no Garrison server."""


@dataclass(frozen=True, slots=True)
class Node:
    """Another server.

    Attributes:
        address: its URL, without a slash at the end.
        key: a management key of it; None where it asks for none.
    """

    name: str
    address: str
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as it was last seen.

    Attributes:
        since: when `reach` became what it is; None before the first answer.
        reason: why it is out of reach, or of no use.
        instances: as its API listed them the last time it answered.
    """

    node: Node
    reach: Reach = "unknown"
    since: datetime | None = None
    reason: str = ""
    version: str = ""
    instances: tuple[Mapping[str, Any], ...] = ()

    @property
    def away(self) -> bool:
        """Whether it did not answer, or not as it should, when it was last asked."""
        return self.reach in ("unreachable", "unusable")

    def to_json(self) -> dict[str, Any]:
        """llamactl's `address`, and the rest beside it."""
        return {
            "name": self.node.name,
            "address": self.node.address,
            "state": self.reach,
            "since": None if self.since is None else self.since.isoformat(),
            "reason": self.reason,
            "version": self.version,
            "instances": len(self.instances),
        }


def checked(node: Node) -> Node:
    """Return the node if its name and address can be used.

    Raises:
        InvalidError: they cannot.
    """
    if not _NAME.match(node.name):
        raise InvalidError(f"invalid node name {node.name!r}", hint="Letters, digits, dots, underscores and dashes.")
    address = node.address.rstrip("/")
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.username or parts.query or parts.fragment or not address.isascii() or " " in address:
        raise InvalidError(f"invalid address {node.address!r}", hint="For example http://10.0.0.2:8080.")
    return Node(node.name, address, node.key)
