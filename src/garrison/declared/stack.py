"""The instances of a whole stack, on this machine and its nodes. No I/O."""

from collections.abc import Iterable, Mapping

from garrison.base.server_settings import ServerSettings
from garrison.declared.plan import Existing, plan_instances
from garrison.declared.spec import specs_of
from garrison.fleet.plan.context import Mode
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.instance import InstanceDeclaration
from garrison.fleet.values.instance_change import InstanceChange

__all__ = ["elsewhere", "nodes_of", "plan_stack"]


def elsewhere(node: str | None, settings: ServerSettings) -> str | None:
    """Return the node; None for this machine, which a manifest may name, too."""
    return None if node == settings.node_name else node


def nodes_of(
    declaration: Declaration, before: Mapping[str, InstanceDeclaration], settings: ServerSettings
) -> list[str | None]:
    """Return the nodes on which a stack has or had instances, this machine (None) among them, in a fixed order.

    Args:
        before: the stack's instances as last applied.
    """
    named = {elsewhere(one.node, settings) for one in (*declaration.instances.values(), *before.values())}
    return sorted(named | {None}, key=lambda node: (node is not None, node or ""))


def plan_stack(
    declaration: Declaration, existing: Iterable[Existing], settings: ServerSettings, *, mode: Mode, adopt: bool
) -> tuple[InstanceChange, ...]:
    """Return what an apply of `declaration` does with instances; see `plan.plan_instances`.

    Raises:
        InvalidError: as `spec.specs_of`.
    """
    specs = specs_of(declaration, settings)
    declared = [(elsewhere(declaration.instances[name].node, settings), spec) for name, spec in specs.items()]
    return plan_instances(declared, existing, declaration.stack, mode=mode, adopt=adopt)
