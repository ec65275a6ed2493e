"""The seam to whoever runs instances: what an apply makes of the instances that a manifest declares."""

from collections.abc import Mapping
from typing import Literal, Protocol

from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.instance import InstanceDeclaration
from garrison.fleet.values.instance_change import InstanceChange

__all__ = ["InstanceActions"]


class InstanceActions(Protocol):
    """Instances of one machine and its nodes. An instance that belongs to another stack, or to none, is never
    changed."""

    async def plan(
        self,
        declaration: Declaration,
        before: Mapping[str, InstanceDeclaration],
        *,
        mode: Literal["reconcile", "patch", "destroy"],
        adopt: bool,
    ) -> tuple[InstanceChange, ...]:
        """Return one change for each instance that is declared, or that the stack owns; sorted by name. Changes
        nothing.

        Args:
            before: the stack's instances as last applied; they say on which nodes to look.
            adopt: take over an instance of a declared name that belongs to no stack.

        Raises:
            GarrisonError: what exists cannot be read.
        """

    def require(self) -> None:
        """Check that changes can be carried out.

        Raises:
            UnreachableError: no server runs here; the hint names the command that starts one.
        """

    async def create(self, change: InstanceChange) -> None:
        """Create the instance; start it if it is to be preloaded.

        Raises:
            GarrisonError: it could not be done.
        """

    async def update(self, change: InstanceChange) -> None:
        """Make the instance as `change.spec` says, and restart its engine where that is needed.

        Raises:
            GarrisonError: it could not be done.
        """

    async def delete(self, change: InstanceChange) -> None:
        """Stop the instance and delete it; nothing if it is gone already.

        Raises:
            GarrisonError: it could not be done.
        """
