"""The instances of a stack, as part of a plan and of an apply."""

from collections.abc import Sequence

from garrison.base.errors import GarrisonError, UnreachableError
from garrison.base.redaction import redacted
from garrison.fleet.context import Fleet
from garrison.fleet.execute.executor import ExecuteOptions
from garrison.fleet.operations.survey import Survey
from garrison.fleet.plan.context import Mode
from garrison.fleet.values.instance import InstanceDeclaration
from garrison.fleet.values.instance_change import InstanceChange, InstanceKind, InstanceOutcome
from garrison.fleet.values.plan import Plan

__all__ = ["change_instances", "plan_instances", "require_server"]

_ORDER = (InstanceKind.DELETE, InstanceKind.UPDATE, InstanceKind.CREATE)
"""What ends makes room, and frees ports, for what comes."""
_STOPPED = "not begun, because the command was stopped"


async def plan_instances(fleet: Fleet, found: Survey, *, mode: Mode, adopt: bool) -> tuple[InstanceChange, ...]:
    """Return what happens to the instances of a stack.

    Raises:
        GarrisonError: what exists cannot be read.
    """
    before = {
        name: InstanceDeclaration.from_json(name, body)
        for name, body in (found.stack.declaration.get("instances", {}) if found.stack else {}).items()
    }
    if fleet.instances is None:
        if found.declaration.instances or before:
            raise _no_server()
        return ()
    return await fleet.instances.plan(found.declaration, before, mode=mode, adopt=adopt)


def require_server(fleet: Fleet, drafted: Plan) -> None:
    """Check that the changes of a plan to instances can be carried out.

    Raises:
        UnreachableError: no server runs here.
    """
    if drafted.instances and fleet.instances is not None:
        fleet.instances.require()


async def change_instances(
    fleet: Fleet, work: Sequence[InstanceChange], options: ExecuteOptions | None
) -> tuple[InstanceOutcome, ...]:
    """Carry the changes out, one after the other. One that fails does not keep the others from being tried."""
    if not work or fleet.instances is None:
        return ()
    calls = {
        InstanceKind.CREATE: fleet.instances.create,
        InstanceKind.UPDATE: fleet.instances.update,
        InstanceKind.DELETE: fleet.instances.delete,
    }
    outcomes = []
    for change in sorted(work, key=lambda one: (_ORDER.index(one.kind), one.name)):
        if options is not None and options.stopping():
            outcomes.append(InstanceOutcome(change=change, error=_STOPPED, hint="Apply again to continue."))
            continue
        try:
            await calls[change.kind](change)
            outcomes.append(InstanceOutcome(change=change))
        except GarrisonError as error:
            outcomes.append(InstanceOutcome(change=change, error=redacted(error.message), hint=error.hint))
    return tuple(outcomes)


def _no_server() -> UnreachableError:
    return UnreachableError("the manifest declares instances, and nothing here runs any", hint="Run `garrison up`.")
