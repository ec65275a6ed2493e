"""Carries out what a plan says about one instance."""

from garrison.base.errors import ConflictError
from garrison.instances.manager import InstanceManager
from garrison.instances.values.spec import InstanceSpec

__all__ = ["delete_instance", "put_instance"]


async def put_instance(instances: InstanceManager, spec: InstanceSpec, *, adopt: bool) -> None:
    """Create an instance of a stack, or change the one that the stack has.

    Raises:
        ConflictError: it belongs to another stack, or to none and is not to be adopted.
    """
    live = instances.find(spec.name)
    if live is None:
        await instances.create(spec)
    else:
        _check_owner(live.spec, spec.stack, adopt=adopt)
        await instances.update(spec.name, spec)
    if spec.preload:
        await instances.start(spec.name)


async def delete_instance(instances: InstanceManager, name: str) -> None:
    """Stop an instance and delete it; nothing if it is gone already."""
    if instances.find(name) is None:
        return
    await instances.stop(name, "its stack does not declare it any more")
    await instances.delete(name)


def _check_owner(found: InstanceSpec, stack: str | None, *, adopt: bool) -> None:
    if found.stack == stack or (found.stack is None and adopt):
        return
    owner = "no stack" if found.stack is None else f"stack {found.stack}"
    raise ConflictError(f"instance {found.name} belongs to {owner}", hint="Plan again, and look at the conflict.")
