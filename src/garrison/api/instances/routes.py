"""`/api/v1/instances`: llamactl's calls, and PATCH, explain, evaluate, eject and log streams beside them."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import ValidationError

from garrison.api.audited import note
from garrison.api.feed import FeedEvent
from garrison.api.instances.logs import follow, tail
from garrison.api.instances.options import InstanceOptions, options_of, spec_of
from garrison.api.instances.remarks import remarks
from garrison.api.instances.shown import etag, shown
from garrison.api.match import IfMatch, check_match
from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.api.sse import EVENTS, EventStream
from garrison.base.errors import DeniedError, InvalidError
from garrison.instances.live import Live
from garrison.instances.values.spec import InstanceSpec
from garrison.nodes.node import NodeView

__all__ = ["check_secrets", "router"]

router = APIRouter(prefix="/api/v1/instances", tags=["instances"], responses=problems(404, 409, 412))

Given = Annotated[Services, Depends(services)]
Name = Annotated[str, Path(max_length=200)]
_RESERVED = ("evaluate", "eject")
_DELETED = "deleted"


@router.get("")
async def list_instances(
    given: Given,
    response: Response,
    limit: Annotated[int | None, Query(ge=1, le=1000, description="At most this many; all when left out.")] = None,
    after: Annotated[str, Query(max_length=200, description="Begin after the instance of this name.")] = "",
    node: Annotated[str, Query(max_length=200, description="Only those of this node; all when left out.")] = "",
    local: Annotated[bool, Query(description="Only those of this server.")] = False,
) -> list[dict[str, Any]]:
    """Return the instances, by name, those of other nodes as they were last seen there.

    `X-Total-Count` is their number; `Link` names the next page.
    """
    here: list[tuple[str, Live | dict[str, Any]]] = []
    if node in ("", given.settings.node_name):
        here = [(live.name, live) for live in given.instances.list()]
    views = [one for one in given.nodes.list() if node in ("", one.node.name) and not local]
    there = [(str(row["name"]), _remote(row, view)) for view in views for row in view.instances]
    every = sorted([*here, *there], key=lambda one: one[0]) if there else here
    rest = [one for one in every if one[0] > after] if after else every
    page = rest if limit is None else rest[:limit]
    response.headers["X-Total-Count"] = str(len(every))
    if len(page) < len(rest):
        response.headers["Link"] = f'<?limit={limit}&after={page[-1][0]}>; rel="next"'
    return [shown(one, given) if isinstance(one, Live) else one for _, one in page]


def _remote(row: Mapping[str, Any], view: NodeView) -> dict[str, Any]:
    """An instance of a node as it was last seen there."""
    return {**row, "node": view.node.name, "node_state": view.reach}


@router.post("/evaluate")
async def evaluate(
    given: Given, options: InstanceOptions, name: Annotated[str, Query(max_length=50)] = "new"
) -> dict[str, Any]:
    """Say whether an instance that does not exist would fit, where, and who would make room."""
    return (await given.instances.evaluate(spec_of(name, options, given.settings))).to_json()


@router.post("/eject")
async def eject_all(given: Given) -> list[dict[str, Any]]:
    """Stop every instance that runs. Requests start them again, where they are started on demand."""
    await given.instances.eject()
    return [shown(one, given) for one in given.instances.list()]


@router.get("/{name}")
async def get_instance(given: Given, name: Name, response: Response) -> dict[str, Any]:
    """Return one instance."""
    live = given.instances.get(name)
    response.headers["ETag"] = etag(live)
    return shown(live, given)


@router.post("/{name}", status_code=201)
async def create_instance(
    given: Given,
    name: Name,
    options: InstanceOptions,
    http: Request,
    response: Response,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> Any:
    """Create a stopped instance. A request for it, or `start`, starts it.

    `notes` says what is odd about its options.
    """
    if name in _RESERVED:
        raise InvalidError(f"an instance cannot be called {name!r}", hint="It is the name of a call. Choose another.")
    if (elsewhere := _elsewhere(options, given)) is not None:
        body = options.model_dump(mode="json", exclude_none=True, exclude={"nodes"})
        status, answered = await given.nodes.call(elsewhere, "POST", f"/api/v1/instances/{name}", body)
        return JSONResponse(answered, status)
    request = {"name": name, "options": options.model_dump(mode="json")}
    key = idempotency_key
    if key is not None and (answer := given.idempotency.answered(key, request)) is not None:
        return answer
    check_secrets(options, http)
    live = await given.instances.create(spec_of(name, options, given.settings))
    note(http, after=options_of(live.spec, given.settings))
    response.headers["ETag"] = etag(live)
    answer = shown(live, given) | _notes(live.spec)
    if key is not None:
        given.idempotency.remember(key, request, answer)
    return answer


@router.put("/{name}")
async def replace_instance(
    given: Given, name: Name, options: InstanceOptions, http: Request, response: Response, if_match: IfMatch = None
) -> dict[str, Any]:
    """Replace what an instance is. One that runs is restarted if its engine's command changes: `restarted` says so.

    `notes` says what is odd about its options.
    """
    live = given.instances.get(name)
    _check_match(live, if_match)
    check_secrets(options, http)
    return await _update(given, live, spec_of(name, options, given.settings, stack=live.spec.stack), http, response)


@router.patch("/{name}")
async def change_instance(
    given: Given,
    name: Name,
    patch: Annotated[dict[str, Any], Body(examples=[{"idle_timeout": 60, "backend_options": {"max_model_len": 8192}}])],
    http: Request,
    response: Response,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Change a part of what an instance is, as a JSON merge patch (RFC 7396): null takes an option away."""
    live = given.instances.get(name)
    _check_match(live, if_match)
    merged = _merged(options_of(live.spec), patch)
    try:
        options = InstanceOptions.model_validate(merged)
    except ValidationError as error:
        found = error.errors()[0]
        raise InvalidError(f"{'.'.join(map(str, found['loc']))}: {found['msg']}") from None
    if "secrets" in patch:
        check_secrets(options, http)
    return await _update(given, live, spec_of(name, options, given.settings, stack=live.spec.stack), http, response)


@router.delete("/{name}", status_code=204)
async def delete_instance(given: Given, name: Name, http: Request, if_match: IfMatch = None) -> None:
    """Delete a stopped instance."""
    live = given.instances.get(name)
    note(http, before=options_of(live.spec, given.settings))
    _check_match(live, if_match)
    await given.instances.delete(name)


@router.post("/{name}/start")
async def start_instance(given: Given, name: Name) -> dict[str, Any]:
    """Begin to start an instance. It goes on in the background: `loading` shows where it is."""
    return shown(await given.instances.start(name), given)


@router.post("/{name}/stop")
async def stop_instance(given: Given, name: Name) -> dict[str, Any]:
    """Stop an instance, after the requests that it has, and return when nothing of it is left."""
    return shown(await given.instances.stop(name), given)


@router.post("/{name}/restart")
async def restart_instance(given: Given, name: Name) -> dict[str, Any]:
    """Stop an instance and begin to start it."""
    return shown(await given.instances.restart(name), given)


@router.post("/{name}/eject")
async def eject_one(given: Given, name: Name) -> dict[str, Any]:
    """Have an instance give up its memory: it is stopped, and started again by its next request."""
    await given.instances.eject(name)
    return shown(given.instances.get(name), given)


@router.get("/{name}/explain")
async def explain(given: Given, name: Name) -> dict[str, Any]:
    """Say what a start would do now: where it fits, who would make room, or why it cannot."""
    return (await given.instances.explain(name)).to_json()


@router.get("/{name}/logs", response_class=PlainTextResponse)
async def logs(
    given: Given, name: Name, lines: Annotated[int, Query(ge=0, le=100_000, description="The last lines.")] = 1000
) -> str:
    """Return the last lines of the engine's output."""
    given.instances.get(name)
    return await tail(given.log_path(name), lines, given.disk)


@router.get("/{name}/logs/stream", response_class=EventStream, responses=EVENTS)
async def log_stream(given: Given, name: Name, lines: Annotated[int, Query(ge=0, le=10_000)] = 100) -> EventStream:
    """Stream the engine's output as server-sent events, each with one line as `text`.

    An event `ended` says that the engine has ended, with the `state` and the `reason` of the instance. The output of
    its next engine follows. After the state `deleted` the stream ends.
    """
    given.instances.get(name)
    return EventStream(_lines(given, name, lines))


async def _lines(given: Services, name: str, count: int) -> AsyncIterator[FeedEvent]:
    ran = _runs(given.instances.get(name))

    def ended() -> FeedEvent | None:
        """What to say of the engine that ran, or started, when this was asked the last time."""
        nonlocal ran
        before, live = ran, given.instances.find(name)
        if live is None:
            return FeedEvent("", "ended", {"state": _DELETED, "reason": "the instance was deleted"})
        ran = _runs(live)
        if not before or (ran and before in (True, ran)):
            return None
        return FeedEvent("", "ended", {"state": str(live.state), "reason": live.record.condition.reason})

    async for one in follow(given.log_path(name), count, given.disk, ended):
        yield one
        if given.closing() or one.data.get("state") == _DELETED:
            return


def _runs(live: Live) -> object:
    """The engine that answers, True for one that starts, or None."""
    return live.engine or live.state.holds_engine or None


def _elsewhere(options: InstanceOptions, given: Services) -> str | None:
    """The node that an instance is for, if it is not this one."""
    names = options.nodes or []
    return names[0] if names and given.settings.node_name not in names else None


async def _update(given: Services, live: Live, spec: InstanceSpec, http: Request, response: Response) -> dict[str, Any]:
    revision = live.record.revision
    note(http, before=options_of(live.spec, given.settings), after=options_of(spec, given.settings))
    restarted = await given.instances.update(live.name, spec, revision=revision)
    response.headers["ETag"] = etag(live)
    return shown(live, given) | {"restarted": restarted} | _notes(spec)


def _notes(spec: InstanceSpec) -> dict[str, Any]:
    found = remarks(spec)
    return {"notes": found} if found else {}


def _check_match(live: Live, wanted: str | None) -> None:
    check_match(f"instance {live.name}", etag(live), wanted)


def _merged(before: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Apply a JSON merge patch."""
    found = dict(before)
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, dict) and isinstance(found.get(name), dict):
            found[name] = _merged(found[name], value)
        else:
            found[name] = value
    return found


def check_secrets(options: InstanceOptions, http: Request) -> None:
    """Refuse references to secrets of this machine from anybody but its owner.

    Raises:
        DeniedError: a holder of a key sent some.
    """
    if options.secrets and not http.scope.get("garrison.local"):
        raise DeniedError(
            "only the owner of the data directory may name variables and files of this machine",
            hint="Use `environment`, or the unix socket.",
        )
