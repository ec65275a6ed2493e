"""Requests that belong to other servers: which node, and with which key."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from garrison.base.errors import NotFoundError, UnreachableError, UnusableError
from garrison.gateway.activator import Activator, Hold, Served, Upstream
from garrison.nodes.node import NodeView
from garrison.nodes.watch import Nodes

__all__ = ["NodeActivator", "WithNodes", "node_upstream"]


@dataclass(frozen=True, slots=True)
class _Hold:
    upstream: Upstream
    release: Callable[[], None] = lambda: None


class NodeActivator:
    """`Activator` whose names are nodes: management calls are passed on to them."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def served(self) -> Sequence[Served]:
        return []

    def find(self, model: str) -> Served | None:
        return None

    async def acquire(self, model: str, *, start: bool = True) -> Hold:
        """As `Activator.acquire`. Raises UnreachableError for a node that did not answer the last time."""
        return _Hold(node_upstream(self._nodes.get(model)))


class WithNodes:
    """`Activator` that asks the nodes for what is not here. The node starts its instances itself."""

    def __init__(self, here: Activator, nodes: Nodes) -> None:
        self._here, self._nodes = here, nodes

    def served(self) -> Sequence[Served]:
        """As `Activator.served`: what is here, then what reachable nodes were last seen to have."""
        here = list(self._here.served())
        names = {one.id for one in here}
        for view in self._nodes.list():
            if view.reach != "reachable":
                continue
            fresh = [_served(one, view) for one in view.instances if one["name"] not in names]
            names |= {one.id for one in fresh}
            here += fresh
        return here

    def find(self, model: str) -> Served | None:
        """As `Activator.find`."""
        if (found := self._here.find(model)) is not None:
            return found
        view = self._node_of(model)
        name = model.partition("/")[0]
        row = None if view is None else next((one for one in view.instances if one["name"] in (model, name)), None)
        return replace(_served(row, view), id=model) if row is not None and view is not None else None

    async def acquire(self, model: str, *, start: bool = True) -> Hold:
        """As `Activator.acquire`."""
        if self._here.find(model) is not None:
            return await self._here.acquire(model, start=start)
        view = self._node_of(model)
        if view is None:
            raise NotFoundError(f"there is no model {model!r}", hint="GET /v1/models lists those that exist.")
        return _Hold(node_upstream(view))

    def _node_of(self, model: str) -> NodeView | None:
        return self._nodes.with_instance(model) or self._nodes.with_instance(model.partition("/")[0])


def node_upstream(view: NodeView) -> Upstream:
    """Where requests for a node go.

    Raises:
        UnreachableError: it did not answer the last time.
        UnusableError: it answered, and not as it should.
    """
    if view.away:
        silent = view.reach == "unreachable"
        raise (UnreachableError if silent else UnusableError)(
            f"node {view.node.name} {'is out of reach' if silent else 'cannot be used'}: {view.reason}",
            hint="It is asked again every minute.", details={"node": view.node.name},
        )  # fmt: skip
    return Upstream(view.node.address, view.node.key, hop=True)


def _served(row: object, view: NodeView) -> Served:
    assert isinstance(row, dict)
    created = row.get("created")
    return Served(
        id=str(row["name"]),
        created=created if isinstance(created, int) else 0,
        instances=(str(row["name"]),),
        facts={"state": str(row.get("state", "")), "node": view.node.name},
    )
