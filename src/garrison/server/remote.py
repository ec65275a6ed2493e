"""Management calls for other nodes: which they are, and where they go."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.types import Receive, Scope, Send

from garrison.api.errors import error_response
from garrison.base.errors import GarrisonError
from garrison.gateway.gateway import read_body
from garrison.gateway.passthrough import PassThrough
from garrison.instances.manager import InstanceManager
from garrison.nodes.watch import Nodes

__all__ = ["Place", "Remote"]

_OF_NODE = re.compile(r"/api/v1/nodes/([^/]+)(/(?:instances|llama-cpp|models|backends|stacks)(?:/.*)?)\Z")
_OF_INSTANCE = re.compile(r"/api/v1/(?:instances|llama-cpp)/([^/]+)(?:/.*)?\Z")


@dataclass(frozen=True, slots=True)
class Place:
    """A node, and the path there."""

    node: str
    path: str


class Remote:
    """Passes calls on to nodes: `/api/v1/nodes/NODE/instances/…`, and `/api/v1/instances/NAME/…` and
    `/api/v1/llama-cpp/NAME/…` for a name that only a node has."""

    def __init__(self, instances: InstanceManager, nodes: Nodes, through: PassThrough, *, most_bytes: int) -> None:
        self._instances, self._nodes, self._through = instances, nodes, through
        self._most_bytes = most_bytes

    def place(self, path: str) -> Place | None:
        """Where a call goes; None for one that is answered here."""
        if (found := _OF_NODE.match(path)) is not None:
            return Place(unquote(found[1]), f"/api/v1{found[2]}")
        if (found := _OF_INSTANCE.match(path)) is not None and self._instances.find(found[1]) is None:
            view = self._nodes.with_instance(found[1])
            return None if view is None else Place(view.node.name, path)
        return None

    async def forward(self, scope: Scope, receive: Receive, send: Send, place: Place) -> None:
        """Pass a call on, and its answer back as it arrives."""
        try:
            self._nodes.get(place.node)
            body = await read_body(scope, receive, self._most_bytes)
        except GarrisonError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._through.forward(
            scope, receive, send, model=place.node, path=place.path, body=body, name_in_body=False
        )  # fmt: skip
        if scope["method"] not in ("GET", "HEAD"):
            self._nodes.look(place.node)
