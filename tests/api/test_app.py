"""What every answer of the API has in common."""

from served_api import ServedApi

from garrison.instances.values.state import State

VLLM = {"backend_type": "vllm", "backend_options": {"model": "acme/tiny"}}


async def test_an_instance_is_created_started_and_answered_with_its_state(served: ServedApi) -> None:
    made = await served.client.post("/api/v1/instances/a", json=VLLM)
    assert made.status_code == 201, made.text
    assert (await served.client.post("/api/v1/instances/a/start")).status_code == 200
    await served.until("a", State.RUNNING)
    shown = (await served.client.get("/api/v1/instances/a")).json()
    assert (shown["state"], shown["status"]) == ("running", "running")
    assert served.runner.starts == ["a"]


async def test_what_is_not_there_has_the_shape_of_every_error(served: ServedApi) -> None:
    for path in ("/api/v1/instances/nobody", "/api/v1/nothing"):
        answer = await served.client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"] == "not-found"
        assert answer.json()["details"]


async def test_a_value_that_cannot_be_used_is_told_in_plain_words(served: ServedApi) -> None:
    body = {"backend_type": "sim", "backend_options": {"model": "m"}, "pin": "maybe", "priority": 10_000_000}
    wrong = await served.client.post("/api/v1/instances/a", json=body)
    assert wrong.status_code == 422
    assert wrong.json()["details"] == "pin: must be true or false; priority: must be at most 1000000"


async def test_a_bug_is_an_answer_and_tells_nothing(served: ServedApi) -> None:
    served.services.ready = lambda: 1 // 0  # type: ignore[assignment,return-value]
    answer = await served.client.get("/readyz")
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal", "details": "a bug in Garrison; the log has the details"}


async def test_another_host_and_another_origin_are_refused(served: ServedApi) -> None:
    rebound = await served.client.get("/api/v1/version", headers={"host": "evil.example"})
    assert rebound.status_code == 403
    page = await served.client.get("/api/v1/version", headers={"origin": "http://evil.example"})
    assert page.status_code == 403
    assert (await served.owner.get("/api/v1/version", headers={"host": "evil.example"})).status_code == 200
