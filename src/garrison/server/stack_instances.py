"""What an apply makes of declared instances, and where an instance answers as a target."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from garrison.api.instances.options import InstanceOptions, options_of, spec_of
from garrison.api.instances.own_options import own_options
from garrison.base.errors import InternalError, NotFoundError, all_errors
from garrison.base.server_settings import ServerSettings
from garrison.base.settings import Settings
from garrison.declared.carry_out import delete_instance, put_instance
from garrison.declared.plan import Existing
from garrison.declared.stack import elsewhere, nodes_of, plan_stack
from garrison.fleet.instance_dialer import InstanceAddress, NotRunning
from garrison.fleet.plan.context import Mode
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.instance import InstanceDeclaration
from garrison.fleet.values.instance_change import InstanceChange
from garrison.fleet.values.target import InstancePlace
from garrison.instances.manager import InstanceManager
from garrison.instances.stored import spec_from_json
from garrison.instances.values.state import State
from garrison.nodes.watch import Nodes

__all__ = ["ServedInstances", "existing_of"]


class ServedInstances:
    """`InstanceActions` and `TargetAddresses` of a server."""

    def __init__(self, instances: InstanceManager, nodes: Nodes, settings: Settings) -> None:
        self._instances, self._nodes, self._settings = instances, nodes, settings

    async def plan(
        self, declaration: Declaration, before: Mapping[str, InstanceDeclaration], *, mode: Mode, adopt: bool
    ) -> tuple[InstanceChange, ...]:
        """As `InstanceActions.plan`."""
        nodes = nodes_of(declaration, before, self._settings)
        existing = [*self._here(), *(one for node in nodes if node is not None for one in self._there(node))]
        return plan_stack(declaration, existing, self._settings, mode=mode, adopt=adopt)

    def require(self) -> None:
        """As `InstanceActions.require`: this is a server."""

    async def create(self, change: InstanceChange) -> None:
        """As `InstanceActions.create`."""
        await self._put(change)

    async def update(self, change: InstanceChange) -> None:
        """As `InstanceActions.update`."""
        await self._put(change)

    async def delete(self, change: InstanceChange) -> None:
        """As `InstanceActions.delete`."""
        if change.node is None:
            await delete_instance(self._instances, change.name)
            return
        path = f"/api/v1/stacks/{self._stack(change)}/instances/{change.name}"
        _check(await self._nodes.call(change.node, "DELETE", path, None))

    async def find(self, place: InstancePlace) -> InstanceAddress | NotRunning:
        """As `TargetAddresses.find`. One on a node is reached through the node."""
        node = elsewhere(place.node, self._settings)
        if node is not None:
            return self._find_there(place.name, node)
        live = self._instances.find(place.name)
        if live is None:
            return NotRunning(f"instance {place.name} does not exist")
        if live.engine is None or live.state is not State.RUNNING:
            return NotRunning(f"instance {place.name} is {live.state}")
        return InstanceAddress(live.engine.upstream.url, live.engine.upstream.key)

    def _find_there(self, name: str, node: str) -> InstanceAddress | NotRunning:
        view = self._nodes.find(node)
        if view is None:
            return NotRunning(f"node {node}, which runs instance {name}, is not known here", known=False)
        if view.reach != "reachable":
            return NotRunning(f"node {node} is {view.reach}: {view.reason}", known=False)
        row = next((one for one in view.instances if one.get("name") == name), None)
        if row is None:
            return NotRunning(f"instance {name} does not exist on node {node}")
        if row.get("state") != State.RUNNING:
            return NotRunning(f"instance {name} is {row.get('state')}")
        return InstanceAddress(f"{view.node.address}/api/v1/instances/{name}/proxy", view.node.key)

    def _here(self) -> Iterable[Existing]:
        return (Existing(spec=live.spec, state=live.state) for live in self._instances.list())

    def _there(self, node: str) -> Iterable[Existing]:
        return (existing_of(row, self._settings, node) for row in self._nodes.get(node).instances)

    async def _put(self, change: InstanceChange) -> None:
        assert change.spec is not None, "a change that is no deletion has a spec"
        spec = spec_from_json(change.name, change.spec)
        if change.node is None:
            await put_instance(self._instances, spec, adopt=change.adopted)
            return
        path = f"/api/v1/stacks/{spec.stack}/instances/{change.name}?adopt={str(change.adopted).lower()}"
        _check(await self._nodes.call(change.node, "PUT", path, options_of(spec)))

    def _stack(self, change: InstanceChange) -> str:
        rows = self._nodes.get(change.node or "").instances
        return next((str(one.get("stack")) for one in rows if one.get("name") == change.name), "-")


def existing_of(row: Mapping[str, Any], defaults: ServerSettings, node: str | None) -> Existing:
    """Return an instance as a server lists it.

    Raises:
        InternalError: the row is not understood.
    """
    try:
        options = InstanceOptions.model_validate(own_options(row))
        spec = spec_of(str(row["name"]), options, defaults, stack=row.get("stack"))
        return Existing(spec=spec, state=State(row["state"]), node=node)
    except (ValidationError, AttributeError, KeyError, ValueError, TypeError) as error:
        where = "the server" if node is None else f"node {node}"
        raise InternalError(f"{where} lists an instance that is not understood: {error}") from None


def _check(answer: tuple[int, Any]) -> None:
    """Raise what a node said, as the error of the same code."""
    status, body = answer
    if status < 400:
        return
    code, text = (body.get("error"), body.get("details")) if isinstance(body, dict) else (None, None)
    cls = next((one for one in all_errors() if one.code == code), NotFoundError if status == 404 else InternalError)
    raise cls(str(text or f"the node answered {status}"))
