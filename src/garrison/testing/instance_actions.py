"""Instances in memory: the twin of `InstanceActions` and `TargetAddresses`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from garrison.base.errors import GarrisonError, UnreachableError
from garrison.base.settings import Settings
from garrison.declared.plan import Existing, plan_instances
from garrison.declared.spec import specs_of
from garrison.fleet.instance_dialer import InstanceAddress, NotRunning
from garrison.fleet.plan.context import Mode
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.instance import InstanceDeclaration
from garrison.fleet.values.instance_change import InstanceChange
from garrison.fleet.values.target import InstancePlace
from garrison.instances.stored import spec_from_json
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State

__all__ = ["MemoryInstanceActions"]


@dataclass(slots=True)
class MemoryInstanceActions:
    """Instances of one machine and its nodes. None runs until `run` says so.

    Attributes:
        existing: by node and name.
        calls: `("create", name)` and so on, in order.
        broken: what a call for an instance of that name raises.
        reachable: whether there is a server.
    """

    existing: dict[tuple[str | None, str], Existing] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    broken: dict[str, GarrisonError] = field(default_factory=dict)
    reachable: bool = True

    def add(self, spec: InstanceSpec, state: State = State.STOPPED, node: str | None = None) -> None:
        """Let an instance exist."""
        self.existing[node, spec.name] = Existing(spec=spec, state=state, node=node)

    def run(self, name: str, node: str | None = None) -> None:
        """Let an instance run."""
        self.add(self.existing[node, name].spec, State.RUNNING, node)

    def spec(self, name: str, node: str | None = None) -> InstanceSpec:
        return self.existing[node, name].spec

    async def plan(
        self,
        declaration: Declaration,
        before: Mapping[str, InstanceDeclaration],
        *,
        mode: Mode,
        adopt: bool,
    ) -> tuple[InstanceChange, ...]:
        specs = specs_of(declaration, Settings())
        declared = [(declaration.instances[name].node, spec) for name, spec in specs.items()]
        return plan_instances(declared, self.existing.values(), declaration.stack, mode=mode, adopt=adopt)

    def require(self) -> None:
        if not self.reachable:
            raise UnreachableError("no server runs here", hint="Run `garrison up`.")

    async def create(self, change: InstanceChange) -> None:
        self._called("create", change)
        self.add(_spec(change), node=change.node)

    async def update(self, change: InstanceChange) -> None:
        self._called("update", change)
        self.add(_spec(change), self.existing[change.node, change.name].state, change.node)

    async def delete(self, change: InstanceChange) -> None:
        self._called("delete", change)
        self.existing.pop((change.node, change.name), None)

    async def find(self, place: InstancePlace) -> InstanceAddress | NotRunning:
        found = self.existing.get((place.node, place.name))
        if found is None:
            return NotRunning(f"instance {place.name} does not exist")
        if found.state is not State.RUNNING:
            return NotRunning(f"instance {place.name} is {found.state}")
        return InstanceAddress(f"http://{place.name}:8000")

    def _called(self, what: str, change: InstanceChange) -> None:
        self.require()
        self.calls.append((what, change.name))
        if (error := self.broken.get(change.name)) is not None:
            raise error


def _spec(change: InstanceChange) -> InstanceSpec:
    assert change.spec is not None
    return spec_from_json(change.name, change.spec)
