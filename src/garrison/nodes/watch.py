"""Asks every node in the background what it runs."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError, NotFoundError, UnreachableError
from garrison.base.logs import logger
from garrison.net.thread_pool import ThreadPool
from garrison.nodes.files import NodeStore
from garrison.nodes.node import Node, NodeView, Reach, checked

__all__ = ["AskNode", "NodeAnswer", "Nodes"]

_INTERVAL = 5.0
_LONGEST = 60.0

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What a node said."""

    version: str
    instances: tuple[Mapping[str, Any], ...]


def _reach_after(error: GarrisonError) -> Reach:
    """Return what an error says about a node: only one that does not answer is out of reach."""
    return "unreachable" if isinstance(error, UnreachableError) else "unusable"


class AskNode(Protocol):
    async def __call__(self, node: Node) -> NodeAnswer:
        """Ask a node, within a deadline.

        Raises:
            UnreachableError: it does not answer.
            DeniedError, UnusableError: it answers, and refuses the key or is no Garrison server.
        """

    async def call(self, node: Node, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Make one management call, within a deadline; return its status and JSON.

        Raises:
            UnreachableError: the node does not answer.
            UnusableError: it answers, and not as a Garrison server.
        """


class Nodes:
    """Every other server that is known here. Belongs to one event loop.

    Args:
        changed: called with a view whose reach changed, when it can be found here.
    """

    def __init__(
        self,
        store: NodeStore,
        ask: AskNode,
        *,
        clock: Clock,
        pool: ThreadPool,
        changed: Callable[[NodeView], None] = lambda _: None,
    ) -> None:
        self._store, self._ask, self._clock, self._pool = store, ask, clock, pool
        self.changed = changed
        self._views: dict[str, NodeView] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._asked: dict[str, asyncio.Event] = {}

    async def startup(self) -> None:
        """Load the nodes and begin to ask them."""
        for node in await self._pool.run(self._store.load, "read the nodes"):
            self._begin(node)

    async def shutdown(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def list(self) -> list[NodeView]:
        """Return the nodes, by name."""
        return [self._views[name] for name in sorted(self._views)]

    def find(self, name: str) -> NodeView | None:
        """Return one node; None if there is none of that name."""
        return self._views.get(name)

    def get(self, name: str) -> NodeView:
        """Return one node. Raises NotFoundError."""
        found = self._views.get(name)
        if found is None:
            raise NotFoundError(f"there is no node {name!r}", hint="`garrison nodes list` shows them.")
        return found

    def with_instance(self, name: str) -> NodeView | None:
        """The first node, by name, that was last seen to have an instance `name`; reachable ones first."""
        having = [one for one in self.list() if any(each.get("name") == name for each in one.instances)]
        return min(having, key=lambda one: one.reach != "reachable", default=None)

    async def add(self, node: Node) -> NodeView:
        """Keep a node, and begin to ask it.

        Raises:
            InvalidError: its name or address cannot be used.
            ConflictError: there is one of that name.
        """
        node = checked(node)
        await self._pool.run(lambda: self._store.add(node), f"add node {node.name}")
        return self._begin(node)

    async def remove(self, name: str) -> None:
        """Forget a node. Raises NotFoundError."""
        self.get(name)
        await self._pool.run(lambda: self._store.remove(name), f"remove node {name}")
        if (task := self._tasks.pop(name, None)) is not None:
            task.cancel()
        self._asked.pop(name, None)
        self._views.pop(name, None)

    async def call(self, name: str, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Make one management call on a node; return its status and JSON.

        Raises:
            NotFoundError: there is no such node.
            UnreachableError, UnusableError: as for `AskNode.call`.
        """
        found = await self._ask.call(self.get(name).node, method, path, body)
        self.look(name)
        return found

    def look(self, name: str) -> None:
        """Ask a node soon: something was changed there."""
        if (asked := self._asked.get(name)) is not None:
            asked.set()

    def _begin(self, node: Node) -> NodeView:
        view = self._views[node.name] = NodeView(node)
        self._asked[node.name] = asyncio.Event()
        self._tasks[node.name] = asyncio.create_task(self._watch(node), name=f"node {node.name}")
        return view

    async def _watch(self, node: Node) -> None:
        wait, asked = _INTERVAL, self._asked[node.name]
        while True:
            before = self._views[node.name]
            try:
                answer = await self._ask(node)
            except GarrisonError as error:
                after = replace(before, reach=_reach_after(error), reason=error.message)
                wait = min(_LONGEST, wait * 2)
            else:
                after = replace(
                    before, reach="reachable", reason="", version=answer.version, instances=answer.instances
                )
                wait = _INTERVAL
            dated = self._views[node.name] = self._dated(before, after)
            if dated.reach != before.reach:
                self.changed(dated)
            asked.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await asked.wait()

    def _dated(self, before: NodeView, after: NodeView) -> NodeView:
        reach: Reach = after.reach
        if before.reach == reach:
            return after
        dated = replace(after, since=self._clock.now())
        _log.info("node", name=after.node.name, state=reach, reason=after.reason)
        return dated
