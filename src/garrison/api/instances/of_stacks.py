"""`/api/v1/stacks/{stack}/instances`: instances that belong to a stack, as an apply changes them."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from garrison.api.audited import note
from garrison.api.instances.options import InstanceOptions, options_of, spec_of
from garrison.api.instances.routes import check_secrets
from garrison.api.instances.shown import shown
from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.base.errors import ConflictError
from garrison.declared.carry_out import delete_instance, put_instance

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/stacks/{stack}/instances", tags=["instances"], responses=problems(409))

Given = Annotated[Services, Depends(services)]
Name = Annotated[str, Path(max_length=200)]
Stack = Annotated[str, Path(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


@router.put("/{name}")
async def put(
    given: Given,
    http: Request,
    stack: Stack,
    name: Name,
    options: InstanceOptions,
    adopt: Annotated[bool, Query(description="Take over an instance that belongs to no stack.")] = False,
) -> dict[str, Any]:
    """Make an instance of a stack as these options say; create it if there is none."""
    check_secrets(options, http)
    before = given.instances.find(name)
    spec = spec_of(name, options, given.settings, stack=stack)
    note(http, before=None if before is None else options_of(before.spec), after=options_of(spec), name=name)
    await put_instance(given.instances, spec, adopt=adopt)
    return shown(given.instances.get(name), given)


@router.delete("/{name}", status_code=204)
async def delete(given: Given, http: Request, stack: Stack, name: Name) -> None:
    """Stop an instance of a stack and delete it; nothing if it is gone already."""
    live = given.instances.find(name)
    if live is None:
        return
    if live.spec.stack != stack:
        raise ConflictError(f"instance {name} does not belong to stack {stack}", hint="Plan again.")
    note(http, before=options_of(live.spec), name=name)
    await delete_instance(given.instances, name)
