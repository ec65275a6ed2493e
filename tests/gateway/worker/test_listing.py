"""The list of models, in the shape that its reader knows."""

import json
from typing import Any

from gateway_lab import Client, GatewayLab

ANTHROPIC = b"Anthropic-Version: 2023-06-01\r\n"


async def told(client: Client, path: str, *, headers: bytes = ANTHROPIC) -> Any:
    answer = await client.ask(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: h\r\n" + headers + b"\r\n")
    assert answer.status == 200
    return json.loads(answer.body)


async def test_to_clients_of_anthropic(lab: GatewayLab) -> None:
    client = await lab.client()
    assert await told(client, "/v1/models?limit=1000") == {
        "data": [], "has_more": False, "first_id": None, "last_id": None,
    }  # fmt: skip
    lab.tell("http://127.0.0.1:9", name="b")
    lab.tell("http://127.0.0.1:9", name="a")
    one = {"type": "model", "id": "b", "display_name": "b", "created_at": "1970-01-01T00:00:00Z", "lifecycle": "active"}
    assert await told(client, "/v1/models/b") == one
    listed = await told(client, "/v1/models")
    assert listed["data"][0] == one
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("b", "a", False)


async def test_to_everybody_else(lab: GatewayLab) -> None:
    lab.tell("http://127.0.0.1:9", name="b")
    listed = await told(await lab.client(), "/v1/models", headers=b"")
    assert listed["object"] == "list"
    assert [(one["id"], one["object"]) for one in listed["data"]] == [("b", "model")]
