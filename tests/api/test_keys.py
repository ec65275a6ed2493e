"""Entity tags of keys: a change that names the revision it saw."""

from typing import Any

import pytest
from served_api import ServedApi

PATH = "/api/v1/auth/keys/1"


@pytest.fixture
async def tag(served: ServedApi) -> str:
    """The entity tag of a key that was just made."""
    made = await served.client.post("/api/v1/auth/keys", json={"name": "ci"})
    assert made.status_code == 201
    tag: str = made.headers["etag"]
    return tag


async def test_each_answer_with_a_key_has_its_tag(served: ServedApi, tag: str) -> None:
    assert (await served.client.get(PATH)).headers["etag"] == tag
    changed = await served.client.patch(PATH, json={"note": "x"})
    assert changed.headers["etag"] != tag
    rotated = await served.client.post(f"{PATH}/rotate", json={})
    assert rotated.headers["etag"] not in (tag, changed.headers["etag"])
    assert (await served.client.get(PATH)).headers["etag"] == rotated.headers["etag"]


CALLS: list[tuple[str, str, Any, int]] = [
    ("PATCH", "", {"note": "second"}, 200),
    ("POST", "/rotate", {}, 200),
    ("DELETE", "", None, 204),
]


@pytest.mark.parametrize(("method", "verb", "body", "status"), CALLS)
async def test_an_old_tag_changes_nothing(
    served: ServedApi, tag: str, method: str, verb: str, body: Any, status: int
) -> None:
    before = (await served.client.patch(PATH, json={"note": "first"})).json()
    refused = await served.client.request(method, PATH + verb, json=body, headers={"If-Match": tag})
    assert (refused.status_code, refused.json()["error"]) == (412, "conflict")
    now = await served.client.get(PATH)
    assert now.json() == before
    assert refused.json()["etag"] == now.headers["etag"]
    wanted = f'"other", {now.headers["etag"]}'
    done = await served.client.request(method, PATH + verb, json=body, headers={"If-Match": wanted})
    assert done.status_code == status


@pytest.mark.parametrize(("method", "verb", "body", "status"), CALLS)
@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}])
async def test_without_a_tag_any_revision_will_do(
    served: ServedApi, tag: str, method: str, verb: str, body: Any, status: int, headers: dict[str, str]
) -> None:
    await served.client.patch(PATH, json={"note": "first"})
    done = await served.client.request(method, PATH + verb, json=body, headers=headers)
    assert done.status_code == status
