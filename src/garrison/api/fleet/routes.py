"""Stacks, plans and applies, and what is on record about the fleet."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from garrison.api.deadline import within
from garrison.api.fleet.bodies import AdoptBody, ApplyBody, DestroyBody, ForgetBody, ManifestBody
from garrison.api.fleet.commands import FleetCommands, Notes
from garrison.api.fleet.sent import Sender, load_sent, refuse_references
from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.base.errors import NotFoundError
from garrison.fleet.hooks.queues import event_json
from garrison.fleet.management.requests import AdoptRequest, ApplyRequest, HistoryFilter

__all__ = ["router"]

_PARSE_SECONDS = 60.0

router = APIRouter(prefix="/api/v1", tags=["fleet"], responses=problems())

Given = Annotated[Services, Depends(services)]
Name = Annotated[str, Path(max_length=200)]
Noun = Literal["adapters", "targets", "models", "stacks"]
QueryText = Annotated[
    str,
    Query(max_length=4096, description="Terms such as `stack:lab status:drifted target:edge*`; see docs/queries.md."),
]
Limit = Annotated[int, Query(ge=1, le=10_000)]
Text = Annotated[str | None, Query(max_length=200)]


@router.get("/stacks")
async def list_stacks(given: Given, query: QueryText = "") -> list[dict[str, Any]]:
    """Return the stacks on record."""
    return (await given.fleet.read(given.fleet.operations.inventory("stacks", query), "the database")).to_json()


@router.get("/stacks/{name}", responses=problems(404))
async def get_stack(
    given: Given,
    name: Name,
    look: Annotated[bool, Query(description="Observe its targets now, instead of what was seen last.")] = False,
) -> dict[str, Any]:
    """Return one stack with its adapters and targets."""
    row = await given.fleet.require_stack(name)
    status = given.fleet.operations.status(Notes(), stack=name, cached=not look)
    return row | {"status": (await given.fleet.look(status, f"the fleet of stack {name}")).to_json()}


@router.get("/status", responses=problems(404))
async def status(
    given: Given,
    stack: Annotated[str | None, Query(max_length=200, description="Only this stack.")] = None,
    look: Annotated[bool, Query(description="Observe the targets now, instead of what was seen last.")] = False,
) -> dict[str, Any]:
    """Return the state of every stack, target and adapter."""
    if stack is not None:
        await given.fleet.require_stack(stack)
    found = given.fleet.operations.status(Notes(), stack=stack, cached=not look)
    return (await given.fleet.look(found, "the fleet")).to_json()


@router.post("/plan", responses=problems(409))
async def plan(given: Given, request: Request, wish: ManifestBody) -> dict[str, Any]:
    """Return what an apply would do now, and why. Nothing is changed. `fingerprint` in it confirms it to an apply."""
    asked, warnings = await _asked(given, request, wish)
    return await _plan(given.fleet, asked, warnings)


@router.post("/apply", responses=problems(409, 423))
async def apply(given: Given, request: Request, wish: ApplyBody) -> dict[str, Any]:
    """Make the targets serve what a manifest declares, exactly by the plan that was seen.

    The answer comes when it is done. An action that failed, or is owed since a target is out of reach, is in the
    `outcomes`, with `ok` false and the command's exit code. It goes on when the caller leaves.
    """
    asked, warnings = await _asked(given, request, wish)
    if wish.simulate:
        return await _plan(given.fleet, asked, warnings)
    applied, view = await given.fleet.apply(asked, wish.fingerprint)
    return {**applied.to_json(), "warnings": warnings, "notes": view.texts}


@router.post("/stacks/{name}/destroy", responses=problems(404, 409, 423))
async def destroy(given: Given, name: Name, wish: DestroyBody) -> dict[str, Any]:
    """Unload everything that a stack owns, and drop it. What is out of reach stays owed."""
    await given.fleet.require_stack(name)
    done, view = await given.fleet.apply(ApplyRequest.destroying(name), wish.fingerprint)
    return {**done.to_json(), "notes": view.texts}


@router.post("/stacks/{name}/adopt", responses=problems(409, 423, 504))
async def adopt(given: Given, name: Name, wish: AdoptBody) -> dict[str, Any]:
    """Adopt adapters that others loaded into a stack, which may be a new one, exactly as they are served."""
    asked = AdoptRequest(stack=name, names=tuple(wish.names), query=wish.query)
    done: dict[str, Any] = (await given.fleet.adopt(asked, wish.fingerprint)).to_json()
    return done


@router.post("/targets/{name}/forget", responses=problems(404, 409, 423))
async def forget(given: Given, name: Name, wish: ForgetBody) -> dict[str, Any]:
    """Drop a target that will not come back, with everything recorded and owed on it. The server is not touched."""
    if not await given.fleet.targets({name: None}):
        raise NotFoundError(f"there is no target {name!r}", hint="GET /api/v1/targets lists them.")
    done: dict[str, Any] = (await given.fleet.forget(name, wish.fingerprint, force=wish.force)).to_json()
    return done


@router.get("/targets")
async def list_targets(given: Given, query: QueryText = "") -> list[dict[str, Any]]:
    """Return the targets on record."""
    return (await given.fleet.read(given.fleet.operations.inventory("targets", query), "the database")).to_json()


@router.get("/inventory/{noun}")
async def inventory(
    given: Given,
    noun: Noun,
    response: Response,
    query: QueryText = "",
    limit: Limit = 1000,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> list[dict[str, Any]]:
    """Return the rows of one noun that match. `X-Total-Count` is their number, `X-On-Record` the number without the
    query, and `X-Targets` that of all targets."""
    found = await given.fleet.read(given.fleet.operations.inventory(noun, query), "the database")
    response.headers["X-Total-Count"] = str(len(found.rows))
    response.headers["X-On-Record"] = str(found.on_record)
    response.headers["X-Targets"] = str(found.targets)
    return [row.to_json() for row in found.rows[offset : offset + limit]]


@router.get("/drift", responses=problems(404))
async def drift(
    given: Given, stack: Annotated[str | None, Query(max_length=200, description="Only this stack.")] = None
) -> dict[str, Any]:
    """Observe the targets now, and return what differs from what was last applied. Unknown is not absent: targets that
    could not be observed are in `unknown`."""
    if stack is not None:
        await given.fleet.require_stack(stack)
    return (await given.fleet.look(given.fleet.operations.drift(Notes(), stack=stack), "the fleet")).to_json()


@router.get("/history")
async def history(
    given: Given,
    response: Response,
    stack: Text = None,
    target: Text = None,
    name: Text = None,
    kind: Annotated[list[str] | None, Query(max_length=50, description="Repeatable.")] = None,
    since: Annotated[datetime | None, Query(description="RFC 3339, with a time zone.")] = None,
    after: Annotated[
        int | None, Query(ge=0, le=2**62, description="Events after the one of this id; the newest when left out.")
    ] = None,
    limit: Limit = 100,
) -> list[dict[str, Any]]:
    """Return what changed and what was done, oldest first. `Link` names the next page."""
    chosen = HistoryFilter(
        stack=stack, target=target, name=name, kinds=tuple(kind) if kind else None, since=_aware(since)
    )
    found = await given.fleet.read(given.fleet.operations.history(chosen, limit=limit, after_id=after), "the database")
    if len(found) == limit or (found and after is None):
        response.headers["Link"] = f'<?after={found[-1].id}&limit={limit}>; rel="next"'
    return [event_json(one) for one in found]


async def _asked(given: Services, request: Request, wish: ManifestBody) -> tuple[ApplyRequest, list[str]]:
    """Load the manifest of a request, and check what it refers to."""
    owner = bool(request.scope.get("garrison.local"))
    sender = Sender(owner, wish.directory, given.environ)
    loaded = await within(
        _PARSE_SECONDS, given.disk.run(lambda: load_sent(wish.manifest, sender), "read a manifest"), "the manifest"
    )
    declared = loaded.declaration
    if not owner:
        refuse_references(declared, await given.fleet.targets(declared.targets))
    return ApplyRequest(declaration=declared, mode=wish.mode, options=wish.options), list(loaded.warnings)


async def _plan(fleet: FleetCommands, asked: ApplyRequest, warnings: list[str]) -> dict[str, Any]:
    view = Notes()
    found = await fleet.look(fleet.operations.plan(asked, view), f"the fleet of stack {asked.declaration.stack}")
    return {"plan": found.to_json(), "fingerprint": found.fingerprint, "warnings": warnings, "notes": view.texts}


def _aware(at: datetime | None) -> datetime | None:
    return at if at is None or at.tzinfo is not None else at.replace(tzinfo=UTC)
