"""Responses that are stored: found again at the target that made them, by whoever may use it."""

import json
from typing import Any

import pytest
from gateway_lab import Client, Conn, GatewayLab, Message, Upstream, chat
from hypothesis import given
from hypothesis import strategies as st
from lab_keys import key, told_keys

from garrison.access.permissions import Grants
from garrison.gateway.link.messages import RouteValue, Tables, TargetValue
from garrison.gateway.worker.table.stored_responses import IdReader, StoredAt, StoredResponses, previous_response


class Engine:
    """An engine that makes responses and keeps them. `asked`: method and path of what it was asked."""

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0
        self.kept: set[str] = set()
        self.asked: list[str] = []

    async def __call__(self, conn: Conn) -> None:
        while True:
            request = await conn.request()
            method, path, _ = request.start.decode().split(" ")
            self.asked.append(f"{method} {path}")
            status, kind, body = self._answer(method, path.partition("?")[0], request.body)
            head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            conn.send(head.encode() + body)

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        if path == "/v1/responses":
            self.count += 1
            made = f"resp_{self.name}{self.count}"
            self.kept.add(made)
            told = {"id": made, "object": "response", "output": [{"id": "msg_1"}]}
            if json.loads(body).get("stream"):
                event = {"type": "response.created", "response": told}
                return (
                    200,
                    "text/event-stream",
                    b"event: response.created\ndata: " + json.dumps(event).encode() + b"\n\n",
                )
            return 200, "application/json", json.dumps(told).encode()
        found = path.split("/")[3]
        if found not in self.kept:
            error = {"error": {"message": f"Response with id '{found}' not found.", "code": 404}}
            return 404, "application/json", json.dumps(error).encode()
        if method == "DELETE":
            self.kept.discard(found)
        return 200, "application/json", json.dumps({"id": found, "at": self.name}).encode()


class Stored:
    """A lab with the engines a and b, each with a route of its name, and the route `m` over both."""

    def __init__(self, lab: GatewayLab, engines: dict[str, Engine], served: dict[str, Upstream]) -> None:
        self.lab, self.engines, self._served = lab, engines, served
        self.client: Client

    def tell(self, **values: Any) -> None:
        targets = [
            TargetValue(id=f"instance:{name}", url=one.url, **values.get(name, {}))
            for name, one in self._served.items()
        ]
        ids = tuple(one.id for one in targets)
        own = [
            RouteValue(name=name, targets=(f"instance:{name}",), instances=(name,), nested=True)
            for name in self.engines
        ]
        both = RouteValue(name="m", targets=ids, policy="round-robin", instances=tuple(self.engines))
        self.lab.plane.table.apply(Tables(version=1, whole=True, targets=targets, routes=[*own, both]))

    async def make(self, *headers: bytes, **fields: Any) -> str:
        body = json.dumps({"model": "m", "input": "hi", **fields}).encode()
        answer = await self.client.ask(chat(body, *headers, path=b"/v1/responses"))
        assert answer.status == 200, answer.body
        return answer.body.decode().split('"id": "')[1].split('"')[0]

    async def ask(self, method: str, path: str, *headers: bytes) -> Message:
        lines = [f"{method} /v1/responses/{path} HTTP/1.1".encode(), b"Host: x", *headers]
        if method == "POST":
            lines.append(b"Content-Length: 0")
        return await self.client.ask(b"\r\n".join(lines) + b"\r\n\r\n")

    def asked(self) -> list[list[str]]:
        found = [one.asked for one in self.engines.values()]
        for one in self.engines.values():
            one.asked = []
        return found


@pytest.fixture
async def stored(lab: GatewayLab) -> Stored:
    engines = {name: Engine(name) for name in "ab"}
    made = Stored(lab, engines, {name: await lab.upstream(one) for name, one in engines.items()})
    made.tell()
    made.client = await lab.client()
    return made


@pytest.mark.parametrize("stream", [False, True])
async def test_it_is_found_at_the_target_that_made_it(stored: Stored, stream: bool) -> None:
    ids = [await stored.make(stream=stream) for _ in range(4)]
    assert sorted(ids) == ["resp_a1", "resp_a2", "resp_b1", "resp_b2"]
    stored.asked()
    for one in ids:
        answer = await stored.ask("GET", one)
        assert (answer.status, json.loads(answer.body)["at"]) == (200, one[5])
    assert [len(one) for one in stored.asked()] == [2, 2], "nobody else was asked"
    assert (await stored.ask("POST", f"{ids[0]}/cancel")).status == 200
    assert (await stored.ask("DELETE", ids[0])).status == 200
    assert stored.lab.plane.responses.find(ids[0]) is None
    assert stored.lab.link.told_of[0] == (ids[0], StoredAt(f"instance:{ids[0][5]}", "m")), "other workers hear of it"


async def test_a_query_is_passed_on(stored: Stored) -> None:
    one = await stored.make()
    stored.asked()
    assert (await stored.ask("GET", f"{one}?stream=true&starting_after=3")).status == 200
    assert [f"GET /v1/responses/{one}?stream=true&starting_after=3"] in stored.asked()


async def test_one_that_nobody_here_has_seen_is_asked_for(stored: Stored) -> None:
    stored.engines["b"].kept.add("resp_old")
    answer = await stored.ask("GET", "resp_old")
    assert (answer.status, json.loads(answer.body)["at"]) == (200, "b")
    assert stored.asked() == [["GET /v1/responses/resp_old"], ["GET /v1/responses/resp_old"]]
    assert (await stored.ask("DELETE", "resp_old")).status == 200
    assert stored.engines["b"].kept == set()


async def test_one_that_nobody_has_is_404_as_openai_says_it(stored: Stored) -> None:
    answer = await stored.ask("GET", "resp_none")
    assert (answer.status, "not found" in json.loads(answer.body)["error"]["message"]) == (404, True)
    assert [len(one) for one in stored.asked()] == [1, 1]
    stored.tell(a={"engine": "llama_cpp"}, b={"engine": "llama_cpp"})
    answer = await stored.ask("POST", "resp_none/cancel")
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["type"]) == (404, "not-found", "invalid_request_error")
    assert [len(one) for one in stored.asked()] == [0, 0], "engines that store none are not asked"


async def test_no_more_targets_are_asked_than_a_few(lab: GatewayLab) -> None:
    engine = Engine("x")
    upstream = await lab.upstream(engine)
    targets = [TargetValue(id=f"instance:{n}", url=upstream.url) for n in range(40)]
    routes = [RouteValue(name=f"r{n}", targets=(f"instance:{n}",)) for n in range(40)]
    lab.plane.table.apply(Tables(version=1, whole=True, targets=targets, routes=routes))
    client = await lab.client()
    assert (await client.ask(b"GET /v1/responses/resp_none HTTP/1.1\r\n\r\n")).status == 404
    assert len(engine.asked) == 8


async def test_nothing_is_started_for_it(stored: Stored) -> None:
    one = await stored.make()
    stored.lab.plane.table.apply(Tables(version=2, targets=[TargetValue(id=f"instance:{one[5]}")]))
    assert (await stored.ask("GET", one)).status == 404
    assert stored.lab.link.waiting == {}


async def test_a_response_that_has_expired_is_forgotten(stored: Stored) -> None:
    one = await stored.make()
    stored.engines[one[5]].kept.clear()
    assert (await stored.ask("GET", one)).status == 404
    assert stored.lab.plane.responses.find(one) is None


async def test_a_key_reads_what_it_may_use(stored: Stored) -> None:
    keys = [
        key("all"),
        key("m", only=Grants(models=frozenset("m"))),
        key("both", only=Grants(instances=frozenset("ab"))),
        key("a", only=Grants(instances=frozenset("a"))),
        key("else", only=Grants(models=frozenset({"other"}))),
    ]
    stored.lab.set(open_inference=False)
    stored.lab.plane.callers.set_keys(told_keys(*keys))
    one = await stored.make(b"X-API-Key: all")
    found = {
        name: (await stored.ask("GET", one, b"X-API-Key: " + name.encode())).status
        for name in ("all", "m", "both", "a", "else", "nobody")
    }
    assert found == {"all": 200, "m": 200, "both": 200, "a": 404, "else": 404, "nobody": 401}
    stored.engines["a"].kept.add("resp_old")
    stored.asked()
    assert (await stored.ask("GET", "resp_old", b"X-API-Key: a")).status == 200, "one that nobody has seen, too"
    assert (await stored.ask("GET", "resp_old", b"X-API-Key: else")).status == 404
    assert stored.asked() == [["GET /v1/responses/resp_old"], []], "no target was asked for who may use none"


async def test_a_route_that_goes_elsewhere_by_now_gives_no_access_to_the_target_before(stored: Stored) -> None:
    stored.lab.set(open_inference=False)
    stored.lab.plane.callers.set_keys(
        told_keys(key("all"), *(key(name, only=Grants(instances=frozenset(name))) for name in "ab"))
    )
    at_a = next(one for one in [await stored.make(b"X-API-Key: all") for _ in range(2)] if one[5] == "a")
    elsewhere = RouteValue(name="m", targets=("instance:b",), instances=("b",))
    stored.lab.plane.table.apply(Tables(version=2, routes=[elsewhere]))
    found = {name: (await stored.ask("GET", at_a, b"X-API-Key: " + name.encode())).status for name in ("b", "a", "all")}
    assert found == {"b": 404, "a": 404, "all": 200}, "the key `a` may not use `m` any more"


async def test_a_conversation_goes_on_where_it_began(stored: Stored) -> None:
    first = await stored.make()
    for _ in range(5):
        following = await stored.make(previous_response_id=first)
        assert following[5] == first[5], "whatever the policy"
    assert {(await stored.make(previous_response_id="resp_unknown"))[5] for _ in range(2)} == {"a", "b"}
    stored.lab.plane.table.apply(Tables(version=2, targets=[TargetValue(id=f"instance:{first[5]}")]))
    assert (await stored.make(previous_response_id=first))[5] != first[5], "the other one says that it knows none"


async def test_requests_for_responses_count(stored: Stored) -> None:
    one = await stored.make()
    stored.lab.plane.stats.take()
    await stored.ask("GET", one)
    await stored.lab.quiet()
    (row,) = stored.lab.plane.stats.take()
    assert (row.route, row.target, row.statuses) == ("m", f"instance:{one[5]}", {200: 1})


async def test_an_answer_that_is_read_is_not_compressed(stored: Stored) -> None:
    await stored.make(b"Accept-Encoding: gzip")
    sent = [one for upstream in stored._served.values() for one in upstream.requests]
    assert sent[0].all(b"accept-encoding") == [b"identity"]


def test_what_is_remembered_is_bounded() -> None:
    known = StoredResponses(3)
    for number in range(5):
        known.remember(f"r{number}", StoredAt("t", "m"))
        known.find("r0")
    assert [known.find(f"r{number}") is not None for number in range(5)] == [True, False, False, True, True]
    assert len(known) == 3


READ = {
    b'{"id":"resp_1","output":[{"id":"msg_2"}]}': "resp_1",
    b'{"previous_response_id": "resp_0", "id" :\n "resp-1_x"}': "resp-1_x",
    b'event: response.created\ndata: {"response":{"id":"resp_1"}}\n\n': "resp_1",
    b'{"id": 7}': None,
    b'{"id": "no spaces here"}': None,
    b'{"id":""}': None,
    b"": None,
    b" " * 4096 + b'{"id":"late"}': None,
}


@pytest.mark.parametrize(("body", "expected"), READ.items())
def test_the_id_is_found_however_the_answer_is_cut(body: bytes, expected: str | None) -> None:
    for size in (1, 7, 10_000):
        reader = IdReader()
        found = [one for at in range(0, len(body), size) if (one := reader.feed(body[at : at + size])) is not None]
        assert found == ([] if expected is None else [expected]), "once"


@given(st.lists(st.binary(max_size=50), max_size=200))
def test_any_answer_is_read(pieces: list[bytes]) -> None:
    reader = IdReader()
    for piece in pieces:
        reader.feed(piece)
    assert len(reader._seen) <= 2 * 4096


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"previous_response_id": "r1"}', "r1"),
        (b'{"previous_response_id": null}', ""),
        (b'{"previous_response_id": 7}', ""),
        (b"{}", ""),
        (b"\xff", ""),
    ],
)
def test_the_response_that_a_request_goes_on_from(body: bytes, expected: str) -> None:
    assert previous_response(body) == expected
