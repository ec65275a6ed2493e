"""`/api/v1/nodes`: other servers. `/api/v1/nodes/{name}/instances…` is passed on to them by the server."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field

from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.nodes.node import Node

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/nodes", tags=["nodes"], responses=problems(404, 409, 502, 504))

Given = Annotated[Services, Depends(services)]
Name = Annotated[str, Path(max_length=200)]


class NewNode(BaseModel):
    """Another Garrison server."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"address": "http://10.0.0.2:8080"}]})

    address: str = Field(max_length=2000)
    api_key: str | None = Field(None, max_length=4096, description="A management key of it. It is never shown.")


@router.get("")
async def list_nodes(given: Given) -> dict[str, Any]:
    """Return the nodes by name, this one among them. Each is shown as it was last seen."""
    here = {"name": given.settings.node_name, "address": "", "state": "reachable", "local": True}
    return {given.settings.node_name: here} | {one.node.name: one.to_json() for one in given.nodes.list()}


@router.get("/{name}")
async def get_node(given: Given, name: Name) -> dict[str, Any]:
    """Return one node."""
    if name == given.settings.node_name:
        return {"name": name, "address": "", "state": "reachable", "local": True}
    return given.nodes.get(name).to_json()


@router.post("/{name}", status_code=201)
async def add_node(given: Given, name: Name, node: NewNode) -> dict[str, Any]:
    """Add a node. It is asked in the background; one that is out of reach is added, too."""
    return (await given.nodes.add(Node(name, node.address, node.api_key))).to_json()


@router.delete("/{name}", status_code=204)
async def remove_node(given: Given, name: Name) -> None:
    """Forget a node. Its instances stay where they are."""
    await given.nodes.remove(name)
