"""Requests made from the OpenAPI document: no server error, and answers that are as documented."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import booleans
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from served_api import ServedApi
from starlette.types import ASGIApp, Receive, Scope, Send

from garrison.api.app import create_app
from garrison.instances.values.spec import InstanceSpec

SCHEMA = schemathesis.openapi.from_dict(create_app(None).openapi())  # type: ignore[arg-type]  # for its document
OPERATIONS = {one.ok().label: one.ok() for one in SCHEMA.get_all_operations()}
KNOWN = {"instances": "qwen", "stacks": "lab", "targets": "edge-1"}
"""What exists, for half of the requests; nearly no other name does."""
CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
)


class OnLoop:
    """Runs an application on the event loop that it belongs to, whichever loop the request comes from."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = asyncio.get_running_loop()

        async def receive_there() -> Any:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_coroutine(receive()), caller))

        async def send_there(message: Any) -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_coroutine(send(message)), caller))

        work = _coroutine(self._app(scope, receive_there, send_there))
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


async def _coroutine(work: Any) -> Any:
    return await work


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ASGIApp]:
    """The application, with an instance `qwen` and a stack `lab`, in a thread of its own. Streams end at once."""
    directory = tmp_path_factory.mktemp("api")
    made = ServedApi(directory)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    run(prepare(made, directory / "log"))
    yield OnLoop(made.asgi, loop)
    run(made.shutdown())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def prepare(made: ServedApi, log: Path) -> None:
    await made.startup()
    log.write_text("a line\n")
    made.services.log_path = lambda _: log
    made.closing = True
    made.feed.close()
    made.fetcher.hold.set()
    await made.instances.create(InstanceSpec(name="qwen"))
    manifest = {"stack": "lab", "targets": {"edge-1": {"base_url": "http://edge-1:8000"}}}
    planned = await made.client.post("/api/v1/plan", json={"manifest": manifest})
    body = {"manifest": manifest, "fingerprint": planned.json()["fingerprint"]}
    assert (await made.client.post("/api/v1/apply", json=body)).status_code == 200


@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_are_as_documented(label: str, app: ASGIApp) -> None:
    operation = OPERATIONS[label]
    operation.schema.app = operation.app = app

    @seed(20260101)
    @settings(
        max_examples=20, deadline=None, database=None, phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(), known=booleans())
    def answers(case: Any, known: bool) -> None:
        name = next((name for part, name in KNOWN.items() if f"/{part}/{{name}}" in operation.path), None)
        if known and name is not None:
            case.path_parameters["name"] = name
        case.call_and_validate(checks=CHECKS, headers={"host": "127.0.0.1:8080"})

    answers()


def test_each_operation_has_a_known_tag_a_summary_and_documented_errors() -> None:
    document = create_app(None).openapi()  # type: ignore[arg-type]  # for its document
    tags = {one["name"] for one in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["tags"], (path, method)
            assert set(operation["tags"]) <= tags, (path, method)
            assert operation["summary"], (path, method)
            assert operation["description"], (path, method)
            if path.startswith("/api/"):
                assert {"401", "403", "422", "503"} <= operation["responses"].keys(), (path, method)
                problem = operation["responses"]["422"]["content"]["application/json"]["schema"]
                assert problem == {"$ref": "#/components/schemas/Problem"}, (path, method)


async def test_the_document_is_served(served: ServedApi) -> None:
    found = await served.client.get("/api/v1/openapi.json")
    assert found.status_code == 200
    assert "Problem" in found.json()["components"]["schemas"]
