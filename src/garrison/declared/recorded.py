"""Instances as the database has them, for commands that run without a server: they can plan, and change nothing."""

import asyncio
from collections.abc import Mapping

from garrison.base.errors import UnreachableError
from garrison.base.server_settings import ServerSettings
from garrison.declared.plan import Existing
from garrison.declared.stack import nodes_of, plan_stack
from garrison.fleet.instance_dialer import NotRunning
from garrison.fleet.plan.context import Mode
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.instance import InstanceDeclaration
from garrison.fleet.values.instance_change import InstanceChange
from garrison.fleet.values.target import InstancePlace
from garrison.instances.stored import spec_from_json
from garrison.instances.values.state import State
from garrison.net.thread_pool import ThreadPool
from garrison.store.instance_store import InstanceRow, InstanceStore

__all__ = ["RecordedInstances"]

_SECONDS = 30.0


class RecordedInstances:
    """`InstanceActions` and `TargetAddresses` without a server.

    Args:
        settings: the name of this machine, and the defaults of what manifests leave open.
        pool: threads for the reads.
    """

    def __init__(self, store: InstanceStore, settings: ServerSettings, pool: ThreadPool) -> None:
        self._store = store
        self._settings = settings
        self._pool = pool

    async def plan(
        self,
        declaration: Declaration,
        before: Mapping[str, InstanceDeclaration],
        *,
        mode: Mode,
        adopt: bool,
    ) -> tuple[InstanceChange, ...]:
        """As `InstanceActions.plan`."""
        existing = [
            Existing(spec=spec_from_json(row.name, row.spec), state=State(row.state), node=node)
            for node in nodes_of(declaration, before, self._settings)
            for row in await self._rows(node)
        ]
        return plan_stack(declaration, existing, self._settings, mode=mode, adopt=adopt)

    def require(self) -> None:
        """As `InstanceActions.require`: there is no server."""
        raise UnreachableError(
            "this changes instances, and no server runs on this data directory",
            hint="`garrison up -f FILE` starts one and applies the manifest; `--server URL` names one elsewhere.",
        )

    async def create(self, change: InstanceChange) -> None:
        self.require()

    async def update(self, change: InstanceChange) -> None:
        self.require()

    async def delete(self, change: InstanceChange) -> None:
        self.require()

    async def find(self, place: InstancePlace) -> NotRunning:
        """As `TargetAddresses.find`. The key of a running engine is its server's, so no address is ever returned."""
        row = next((one for one in await self._rows(place.node) if one.name == place.name), None)
        if row is None:
            return NotRunning(f"instance {place.name} does not exist yet")
        if State(row.state).holds_engine:
            return NotRunning(f"instance {place.name} is {row.state}, and no server is here to ask it", known=False)
        return NotRunning(f"instance {place.name} is {row.state}")

    async def _rows(self, node: str | None) -> list[InstanceRow]:
        name = node or self._settings.node_name
        async with asyncio.timeout(_SECONDS):
            return await self._pool.run(lambda: self._store.instances(name), f"read the instances of {name}")
