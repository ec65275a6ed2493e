"""`/api/v1/profiles`: sets of model names that go elsewhere while one is active."""

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from garrison.api.problems import problems
from garrison.api.services import Services, services

__all__ = ["ProfileChoice", "router"]

router = APIRouter(prefix="/api/v1/profiles", tags=["profiles"], responses=problems())

Given = Annotated[Services, Depends(services)]


class ProfileChoice(Protocol):
    """The profiles that stacks declare, and the active one."""

    active: str | None

    @property
    def all(self) -> Mapping[str, Mapping[str, str | None]]:
        """By name, where model names go; None: nowhere."""

    def activate(self, name: str | None) -> None:
        """Make another one active; None for none. Raises NotFoundError."""


class Chosen(BaseModel):
    """Which profile is to be active."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "coding"}, {"name": None}]})

    name: str | None = Field(max_length=200, description="Its name; null for none.")


@router.get("")
async def list_profiles(given: Given) -> dict[str, Any]:
    """Return the profiles by name, each with where model names go, and which one is active."""
    found = given.profiles
    return {"active": found.active, "profiles": {name: dict(pins) for name, pins in found.all.items()}}


@router.put("/active", responses=problems(404))
async def choose_profile(given: Given, wish: Chosen) -> dict[str, Any]:
    """Make another profile active, until the next choice or the server's end. It holds for requests that follow."""
    given.profiles.activate(wish.name)
    await given.holds.follow()
    return await list_profiles(given)
