"""Profiles over HTTP."""

from served_api import ServedApi

URL = "/api/v1/profiles"


async def test_one_is_chosen_and_none_again(served: ServedApi) -> None:
    assert (await served.client.get(URL)).json() == {"active": None, "profiles": {}}
    served.profiles.declare({"coding": {"gpt-4": "qwen", "whisper": None}})
    chosen = await served.client.put(f"{URL}/active", json={"name": "coding"})
    assert chosen.json() == {"active": "coding", "profiles": {"coding": {"gpt-4": "qwen", "whisper": None}}}
    assert (await served.client.put(f"{URL}/active", json={"name": None})).json()["active"] is None


async def test_one_that_does_not_exist(served: ServedApi) -> None:
    refused = await served.client.put(f"{URL}/active", json={"name": "night"})
    assert (refused.status_code, refused.json()["error"]) == (404, "not-found")
    assert (await served.client.put(f"{URL}/active", json={})).status_code == 422
