"""The instances of a stack for commands beside a running server: it is asked, and changes them."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garrison.base.errors import GarrisonError
from garrison.base.settings import Settings
from garrison.declared.plan import Existing
from garrison.declared.stack import elsewhere, nodes_of, plan_stack
from garrison.fleet.instance_dialer import InstanceAddress, NotRunning
from garrison.fleet.plan.context import Mode
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.instance import InstanceDeclaration
from garrison.fleet.values.instance_change import InstanceChange
from garrison.fleet.values.target import InstancePlace
from garrison.instances.values.state import State
from garrison.net.thread_pool import ThreadPool

if TYPE_CHECKING:
    from garrison.cli.server.client import ServerClient

__all__ = ["InstancesOfServer"]

_MOST_KEY_BYTES = 4096


class InstancesOfServer:
    """`InstanceActions` and `TargetAddresses` through the server of this data directory.

    Args:
        open_client: opens a client of it.
        pool: threads for calls, which block.
    """

    def __init__(self, open_client: "Callable[[], ServerClient]", settings: Settings, pool: ThreadPool) -> None:
        self._open, self._settings, self._pool = open_client, settings, pool

    async def plan(
        self, declaration: Declaration, before: Mapping[str, InstanceDeclaration], *, mode: Mode, adopt: bool
    ) -> tuple[InstanceChange, ...]:
        """As `InstanceActions.plan`."""
        if not declaration.instances and not before:
            return ()
        nodes = nodes_of(declaration, before, self._settings)
        existing = [one for node in nodes for one in await self._existing(node)]
        return plan_stack(declaration, existing, self._settings, mode=mode, adopt=adopt)

    def require(self) -> None:
        """As `InstanceActions.require`: there is a server."""

    async def create(self, change: InstanceChange) -> None:
        """As `InstanceActions.create`."""
        await self._put(change)

    async def update(self, change: InstanceChange) -> None:
        """As `InstanceActions.update`."""
        await self._put(change)

    async def delete(self, change: InstanceChange) -> None:
        """As `InstanceActions.delete`."""
        row = next((one for one in await self._rows(change.node) if one["name"] == change.name), None)
        if row is not None:
            await self._call("DELETE", f"{_below(change.node)}/stacks/{row['stack']}/instances/{change.name}")

    async def find(self, place: InstancePlace) -> InstanceAddress | NotRunning:
        """As `TargetAddresses.find`. The key of a running engine is read where its server keeps it."""
        node = elsewhere(place.node, self._settings)
        try:
            row = next((one for one in await self._rows(node) if one["name"] == place.name), None)
        except GarrisonError as error:
            return NotRunning(f"the server cannot be asked about instance {place.name}: {error.message}", known=False)
        if row is None:
            return NotRunning(f"instance {place.name} does not exist")
        if row["state"] != State.RUNNING:
            return NotRunning(f"instance {place.name} is {row['state']}")
        if node is not None:
            return NotRunning(f"instance {place.name} is on node {node}, whose server looks after it", known=False)
        path = self._settings.data_dir / "instances" / place.name / "key"
        key = await self._pool.run(lambda: _read_key(path), f"read {path}")
        return InstanceAddress(f"http://127.0.0.1:{row['port']}", key)

    async def _existing(self, node: str | None) -> Iterable[Existing]:
        from garrison.server.stack_instances import existing_of

        return [existing_of(row, self._settings, node) for row in await self._rows(node)]

    async def _rows(self, node: str | None) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = await self._call("GET", f"{_below(node)}/instances?local=true")
        return found

    async def _put(self, change: InstanceChange) -> None:
        from garrison.api.instances.options import options_of
        from garrison.instances.stored import spec_from_json

        assert change.spec is not None, "a change that is no deletion has a spec"
        spec = spec_from_json(change.name, change.spec)
        adopt = "true" if change.adopted else "false"
        path = f"{_below(change.node)}/stacks/{spec.stack}/instances/{change.name}?adopt={adopt}"
        await self._call("PUT", path, options_of(spec))

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        def call() -> Any:
            with self._open() as client:
                return client.call(method, path, body=body)

        return await self._pool.run(call, f"{method} {path}")


def _below(node: str | None) -> str:
    return "" if node is None else f"/nodes/{node}"


def _read_key(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_KEY_BYTES).decode("ascii", "replace") or None
    except OSError:
        return None
