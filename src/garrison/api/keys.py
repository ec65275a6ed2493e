"""`/api/v1/auth/keys`: llamactl's calls, and scopes, limits, change and rotation beside them. `/api/v1/audit`."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from garrison.access.audit import AuditFilter
from garrison.access.changes import KEEP, Keep, KeyChange, NewKey
from garrison.access.key import Key
from garrison.access.permissions import Grants, Limits, Permissions, Scope
from garrison.access.stored import key_tag, key_to_json
from garrison.api.audited import note
from garrison.api.match import IfMatch, check_match
from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.base.errors import InvalidError

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["keys"], responses=problems(404, 409, 412))

Given = Annotated[Services, Depends(services)]
Id = Annotated[int, Path(ge=1, le=2**53)]
_Names = Annotated[list[Annotated[str, Field(max_length=300)]], Field(max_length=1000)]
_Seconds = Annotated[int, Field(ge=0, le=253_402_300_799)]


class KeyLimits(BaseModel):
    """How much a key may do; null is no limit. The gateway holds it."""

    model_config = ConfigDict(extra="forbid")

    requests_per_minute: int | None = Field(None, ge=1, le=10**9)
    tokens_per_minute: int | None = Field(None, ge=1, le=10**12)
    concurrent: int | None = Field(None, ge=1, le=10**9)


class ChangedKey(BaseModel):
    """The parts of a key that change; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, min_length=1, max_length=100)
    note: str | None = Field(None, max_length=1000)
    enabled: bool | None = None
    expires_at: _Seconds | None = Field(None, description="Unix time; null for never.")
    scopes: list[Scope] | None = Field(None, min_length=1, max_length=3)
    permission_mode: Literal["allow_all", "per_instance"] | None = None
    instance_ids: list[Annotated[int, Field(ge=1, le=2**53)]] | None = Field(None, max_length=1000)
    instances: _Names | None = None
    models: _Names | None = None
    limits: KeyLimits | None = None
    priority: int | None = Field(None, ge=-100, le=100, description="Where requests wait, higher ones go first.")


class NewKeyBody(ChangedKey):
    """A key as it is asked for."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "app", "permission_mode": "allow_all"}]}
    )

    name: str = Field(min_length=1, max_length=100)
    permission_mode: Literal["allow_all", "per_instance"] = "allow_all"


class Rotation(BaseModel):
    """How a token is replaced."""

    model_config = ConfigDict(extra="forbid")

    overlap: float = Field(0.0, ge=0, le=366 * 86400, description="Seconds for which the old token stays valid.")


@router.post("/auth/keys", status_code=201)
async def create_key(given: Given, request: Request, response: Response, body: NewKeyBody) -> dict[str, Any]:
    """Create a key. `key` is its token, which is shown once."""
    made = NewKey(
        name=body.name,
        note=body.note or "",
        enabled=body.enabled is not False,
        expires_at=_time(body.expires_at),
        permissions=_permissions(body, body.scopes or [Scope.INFERENCE]),
        limits=_limits(body.limits),
        priority=body.priority or 0,
    )
    issued = await given.keys.create_key(made)
    note(request, after=key_to_json(issued.key), name=str(issued.key.id))
    return _shown(issued.key, response, issued.token)


@router.get("/auth/keys")
async def list_keys(given: Given) -> list[dict[str, Any]]:
    """Return the keys, without their tokens."""
    return [key_to_json(one) for one in await given.keys.list_keys()]


@router.get("/auth/keys/{id}")
async def get_key(given: Given, id: Id, response: Response) -> dict[str, Any]:
    """Return one key, without its token."""
    return _shown(await given.keys.get_key(id), response)


@router.patch("/auth/keys/{id}")
async def change_key(
    given: Given, request: Request, response: Response, id: Id, body: ChangedKey, if_match: IfMatch = None
) -> dict[str, Any]:
    """Change a key: name, note, scopes, limits, priority, expiry, whether it is enabled."""
    before = await _matched(given, id, if_match)
    sent = body.model_fields_set
    permissions: Permissions | Keep = KEEP
    if sent & {"scopes", "permission_mode", "instance_ids", "instances", "models"}:
        permissions = _changed_permissions(before.permissions, body)
    expires: datetime | Keep | None = _time(body.expires_at) if "expires_at" in sent else KEEP
    change = KeyChange(
        name=KEEP if body.name is None else body.name,
        note=KEEP if body.note is None else body.note,
        enabled=KEEP if body.enabled is None else body.enabled,
        expires_at=expires,
        permissions=permissions,
        limits=_limits(body.limits) if "limits" in sent else KEEP,
        priority=KEEP if body.priority is None else body.priority,
    )
    after = await given.keys.update_key(id, change, revision=before.revision)
    note(request, before=key_to_json(before), after=key_to_json(after), name=str(id))
    return _shown(after, response)


@router.post("/auth/keys/{id}/rotate")
async def rotate_key(
    given: Given, request: Request, response: Response, id: Id, body: Rotation | None = None, if_match: IfMatch = None
) -> dict[str, Any]:
    """Give a key a new token. The old one stays valid for `overlap` seconds."""
    before = await _matched(given, id, if_match)
    overlap = body.overlap if body is not None else 0.0
    issued = await given.keys.rotate_key(id, overlap, revision=_seen(before, if_match))
    note(request, before=key_to_json(before), after=key_to_json(issued.key), name=str(id))
    return _shown(issued.key, response, issued.token)


@router.delete("/auth/keys/{id}", status_code=204)
async def delete_key(given: Given, request: Request, id: Id, if_match: IfMatch = None) -> None:
    """Delete a key. Requests with it are refused from now on."""
    before = await _matched(given, id, if_match)
    gone = await given.keys.delete_key(id, revision=_seen(before, if_match))
    note(request, before=key_to_json(gone), name=str(id))


@router.get("/auth/keys/{id}/permissions")
async def permissions(given: Given, id: Id) -> list[dict[str, Any]]:
    """Return the instances that a key is limited to; none for one that may use all."""
    only = (await given.keys.get_key(id)).permissions.only
    if only is None:
        return []
    named = [one for one in given.instances.list() if one.record.id in only.instance_ids or one.name in only.instances]
    return [{"instance_id": one.record.id, "instance_name": one.name} for one in named]


@router.get("/audit")
async def audit(
    given: Given,
    response: Response,
    before: Annotated[int | None, Query(ge=1, le=2**53, description="Older than the call of this id.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    action: Annotated[str | None, Query(max_length=100, description="Such as `instances.start`.")] = None,
    key_id: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> list[dict[str, Any]]:
    """Return management calls, newest first: who, what, before, after, outcome. `Link` names the next page."""
    page = await given.audit.page(AuditFilter(action=action, key_id=key_id), before_id=before, limit=limit)
    if page.next is not None:
        response.headers["Link"] = f'<?limit={limit}&before={page.next}>; rel="next"'
    return [asdict(one) | {"at": one.at.isoformat()} for one in page.calls]


def _shown(key: Key, response: Response, token: str | None = None) -> dict[str, Any]:
    response.headers["ETag"] = key_tag(key.id, key.revision)
    return key_to_json(key, token)


async def _matched(given: Services, id: int, if_match: str | None) -> Key:
    """The key, if its entity tag is one of those that the call names."""
    key = await given.keys.get_key(id)
    check_match(f"key {id}", key_tag(id, key.revision), if_match)
    return key


def _seen(key: Key, if_match: str | None) -> int | None:
    """The revision that must not change between the check and the change."""
    return None if if_match is None else key.revision


def _permissions(body: ChangedKey, scopes: Sequence[Scope]) -> Permissions:
    only = Grants(frozenset(body.instances or ()), frozenset(body.instance_ids or ()), frozenset(body.models or ()))
    if body.permission_mode == "per_instance" and not only:
        raise InvalidError("per_instance permits nothing here", hint="Send instance_ids, instances or models.")
    return Permissions(frozenset(scopes), only or None)


def _changed_permissions(before: Permissions, body: ChangedKey) -> Permissions:
    scopes = before.scopes if body.scopes is None else frozenset(body.scopes)
    if body.permission_mode == "allow_all":
        return Permissions(scopes, None)
    old = before.only or Grants()
    only = Grants(
        old.instances if body.instances is None else frozenset(body.instances),
        old.instance_ids if body.instance_ids is None else frozenset(body.instance_ids),
        old.models if body.models is None else frozenset(body.models),
    )
    return Permissions(scopes, only or None)


def _limits(given: KeyLimits | None) -> Limits:
    return Limits() if given is None else Limits(**given.model_dump())


def _time(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
