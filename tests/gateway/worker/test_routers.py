"""Requests to a target that has several models and none of its own, and the list of them."""

import json
from typing import Any

import pytest
from gateway_lab import OK, Conn, GatewayLab, Upstream, chat
from lab_keys import key, told_keys

from garrison.access.permissions import Grants
from garrison.gateway.link.messages import RouteValue, Tables, TargetValue
from garrison.gateway.requests.paths import LLAMA_ROUTER

MODELS = ("one", "org/two")


async def answers(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(OK)


class Router:
    """A lab with the router `r`, with the models in `MODELS` once they are known."""

    def __init__(self, lab: GatewayLab) -> None:
        self.lab = lab
        self.upstream: Upstream

    async def start(self, **value: Any) -> "Router":
        self.upstream = await self.lab.upstream(answers)
        self.target = TargetValue(id="instance:r", url=self.upstream.url, engine=LLAMA_ROUTER, **value)
        self.tell(RouteValue(name="r", targets=(self.target.id,), nested=True))
        return self

    def tell(self, *routes: RouteValue) -> None:
        self.lab.plane.table.apply(Tables(version=1, targets=[self.target], routes=list(routes)))

    def know(self) -> None:
        """Its models are known, one of them loaded."""
        route = RouteValue(name="r", targets=(self.target.id,), nested=True, listed=False, instances=("r",))
        states = {"one": "running", "org/two": "stopped"}
        self.tell(
            route,
            *(
                RouteValue(
                    name=f"r/{name}", targets=(self.target.id,), rest=name, instances=("r",), facts={"state": state}
                )
                for name, state in states.items()
            ),
        )

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        client = await self.lab.client()
        answer = await client.ask(data)
        return answer.status, answer.body

    def asked_for(self) -> list[Any]:
        """The models that have reached the target."""
        return [json.loads(one.body)["model"] for one in self.upstream.requests if one.body]


@pytest.fixture
async def router(lab: GatewayLab) -> Router:
    return await Router(lab).start()


def body(model: str) -> bytes:
    return json.dumps({"model": model, "messages": []}).encode()


@pytest.mark.parametrize("known", [False, True])
async def test_the_target_is_asked_for_the_model_behind_the_name(router: Router, known: bool) -> None:
    if known:
        router.know()
    for model in MODELS:
        assert await router.ask(chat(body(f"r/{model}"))) == (200, b"ok")
    assert router.asked_for() == list(MODELS)
    assert not router.lab.plane.table.targets["instance:r"].ends, "a request costs the same for any number of models"


async def test_its_name_alone_is_refused_with_the_names_of_its_models(router: Router) -> None:
    status, said = await router.ask(chat(body("r")))
    assert (status, b"Ask for r/MODEL; GET /v1/models lists its models while it runs." in said) == (400, True)
    router.know()
    status, said = await router.ask(chat(body("r")))
    assert (status, b"Ask for r/one or r/org/two." in said) == (400, True)
    router.tell(*(RouteValue(name=f"r/{one}", targets=("instance:r",), rest=one) for one in "abcdefghij"))
    _, said = await router.ask(chat(body("r")))
    assert b"such as r/one, " in said
    assert b"lists all 12" in said
    assert not router.upstream.requests


async def test_who_may_not_use_it_learns_nothing_of_its_models(router: Router) -> None:
    router.know()
    router.lab.set(open_inference=False)
    status, said = await router.ask(chat(body("r")))
    assert (status, b"org/two" in said) == (401, False)


async def test_keys_are_for_all_of_its_models_or_for_one(router: Router) -> None:
    router.know()
    router.lab.set(open_inference=False)
    only = {
        "all": Grants(instances=frozenset({"r"})),
        "one": Grants(models=frozenset({"r/one"})),
        "else": Grants(instances=frozenset({"x"})),
    }
    router.lab.plane.callers.set_keys(told_keys(*(key(name, only=grants) for name, grants in only.items())))

    async def tried(name: str) -> tuple[list[int], list[str]]:
        header = b"X-API-Key: " + name.encode()
        answers = [
            (await router.ask(chat(body(f"r/{model}"), header, path=path)))[0]
            for path in (b"/v1/chat/completions", b"/models/load", b"/models/unload")
            for model in MODELS
        ]
        _, found = await router.ask(b"GET /v1/models HTTP/1.1\r\nHost: g\r\n%b\r\n\r\n" % header)
        return answers, [one["id"] for one in json.loads(found)["data"]]

    assert await tried("all") == ([200, 200, 200, 200, 403, 403], ["r/one", "r/org/two"])
    assert await tried("one") == ([200, 403, 200, 403, 403, 403], ["r/one"])
    assert await tried("else") == ([403] * 6, [])
    assert router.asked_for() == ["one", "org/two", "one"]


async def test_the_paths_of_its_engine(router: Router) -> None:
    post = chat(body("one"), path=b"/llama-cpp/r/v1/chat/completions")
    assert await router.ask(post) == (200, b"ok"), "where the body is the engine's own"
    assert router.asked_for() == ["one"]
    for target, status in (
        (b"/llama-cpp/r/props?model=org/two", 200),
        (b"/llama-cpp/r/slots", 200),
        (b"/llama-cpp/r/props?model=one&autoload=1", 404),
        (b"/llama-cpp/r/v1/models", 404),
        (b"/llama-cpp/r/models", 404),
    ):
        found = await router.ask(b"GET " + target + b" HTTP/1.1\r\nHost: g\r\n\r\n")
        assert found[0] == status, target


async def test_the_list_has_its_models_in_its_place(router: Router) -> None:
    async def listed() -> dict[str, str]:
        _, found = await router.ask(b"GET /v1/models HTTP/1.1\r\nHost: g\r\n\r\n")
        return {one["id"]: one["status"]["value"] for one in json.loads(found)["data"]}

    assert list(await listed()) == ["r"]
    router.know()
    assert await listed() == {"r/one": "loaded", "r/org/two": "unloaded"}
    status, found = await router.ask(b"GET /v1/models/r/org/two HTTP/1.1\r\nHost: g\r\n\r\n")
    assert (status, json.loads(found)["id"]) == (200, "r/org/two")


@pytest.mark.parametrize("known", [False, True])
async def test_one_of_its_models_is_loaded_and_unloaded(router: Router, known: bool) -> None:
    if known:
        router.know()
    header = b"Authorization: Bearer " + router.lab.KEY.encode()
    for path, model in ((b"/models/load", "r/org/two"), (b"/models/unload", "r/org/two"), (b"/models/load", "r")):
        assert (await router.ask(chat(body(model), header, path=path)))[0] == 200
    assert router.lab.link.loads == [
        ("instance:r", "org/two", True), ("instance:r", "org/two", False), ("instance:r", "", True),
    ]  # fmt: skip


async def test_another_server_is_asked_by_the_whole_name(lab: GatewayLab) -> None:
    there = await Router(lab).start(hop=True)
    there.tell(RouteValue(name="r", targets=("instance:r",), nested=True))
    assert await there.ask(chat(body("r/one"))) == (200, b"ok")
    there.know()
    assert await there.ask(chat(body("r/one"))) == (200, b"ok")
    assert there.asked_for() == ["r/one", "r/one"]


async def test_a_route_that_leads_to_one_of_its_models(router: Router) -> None:
    router.tell(RouteValue(name="small", targets=("instance:r",), models=("org/two",)))
    assert await router.ask(chat(body("small"))) == (200, b"ok")
    assert router.asked_for() == ["org/two"]


async def test_a_feed_tells_of_the_end_of_those_models_only_that_its_reader_saw(lab: GatewayLab) -> None:
    lab.set(open_inference=False)
    lab.plane.callers.set_keys(told_keys(key("k", only=Grants(instances=frozenset({"a"})))))
    hidden = RouteValue(name="node", targets=("instance:a",), instances=("a",), listed=False)
    beneath = RouteValue(name="a/", targets=("instance:a",), instances=("a",), nested=True)
    routes = [
        *(RouteValue(name=name, targets=(f"instance:{name}",), instances=(name,)) for name in ("a", "secret")),
        hidden,
        beneath,
    ]
    targets = [TargetValue(id=f"instance:{name}", url="http://127.0.0.1:1") for name in ("a", "secret")]
    lab.plane.apply(Tables(version=1, whole=True, targets=targets, routes=routes))
    client = await lab.client()
    client.send(b"GET /models/sse HTTP/1.1\r\nHost: x\r\nX-API-Key: k\r\n\r\n")
    await lab.until(lambda: lab.plane.feeds)
    lab.plane.apply(Tables(version=2, gone_routes=["secret", "node", "a/", "unknown"]))
    lab.plane.apply(Tables(version=3, gone_routes=["a"]))
    told = await client.reader.readuntil(b"model_remove")
    assert b'"model":"a"' in told
    assert told.count(b'"model"') == 1
    client.close()
    await lab.until(lambda: not lab.plane.feeds)
