"""Routes that change parameters, and their aliases, over real connections: the engine sees what it is meant to."""

from typing import Any

import pytest
from gateway_lab import OK, Conn, GatewayLab, chat

from garrison.gateway.link.messages import RouteValue, Tables
from garrison.gateway.link.route_settings import FilterValue
from garrison.gateway.worker.table.targets import Route

HOT = FilterValue(set={"temperature": "1.5", "y": '{"model": null}'}, strip=("logit_bias",))


async def answers(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(OK)


class Filtered:
    """A lab with one target, and the bodies that it was sent."""

    def __init__(self, lab: GatewayLab, served: Any) -> None:
        self.lab, self._served, self._version = lab, served, 1

    def route(self, **value: Any) -> None:
        self._version += 1
        told = RouteValue(**({"name": "m", "targets": ("target:m0",)} | value))
        self.lab.plane.apply(Tables(version=self._version, routes=[told]))

    async def sent(self, body: bytes, *headers: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
        client = await self.lab.client()
        answer = await client.ask(chat(body, *headers, path=path))
        client.close()
        assert answer.status == 200, answer.body
        found: bytes = self._served.requests[-1].body
        return found

    async def refused(self, body: bytes, *headers: bytes, path: bytes = b"/v1/chat/completions") -> tuple[int, str]:
        before = len(self._served.requests)
        client = await self.lab.client()
        answer = await client.ask(chat(body, *headers, path=path))
        client.close()
        assert len(self._served.requests) == before, "the engine saw it"
        return answer.status, answer.body.decode()


@pytest.fixture
async def filtered(lab: GatewayLab) -> Filtered:
    return Filtered(lab, await lab.serve(answers))


async def test_what_is_not_changed_is_byte_for_byte_what_was_sent(filtered: Filtered) -> None:
    body = (
        b'\n{ "x" : 1.50, "model":"m" ,"logit_bias": {"model": [1]},"\\u0074emperature":0,"temperature":0 ,"z":"\xff" }'
        b"\r\n"
    )
    filtered.route()
    assert await filtered.sent(body) == body
    filtered.route(filters={"m": HOT})
    assert await filtered.sent(body) == (
        b'\n{ "x" : 1.50, "model":"m" ,"\\u0074emperature":1.5,"temperature":1.5 ,"z":"\xff","y":{"model": null} }\r\n'
    )


async def test_the_name_and_the_parameters_change_together(filtered: Filtered) -> None:
    filtered.route(models=("acme/base",), filters={"m": HOT})
    sent = await filtered.sent(b'{"model":"m","messages":[]}')
    assert sent == b'{"model":"acme/base","messages":[],"temperature":1.5,"y":{"model": null}}'


async def test_an_alias_has_parameters_of_its_own(filtered: Filtered) -> None:
    filtered.route(
        aliases=("m:high", "plain"), models=("base",), filters={"m:high": FilterValue(set={"effort": '"high"'})}
    )
    assert await filtered.sent(b'{"model":"m"}') == b'{"model":"base"}'
    assert await filtered.sent(b'{"model":"plain"}') == b'{"model":"base"}'
    assert await filtered.sent(b'{"model":"m:high"}') == b'{"model":"base","effort":"high"}'
    listed = filtered.lab.plane.table.routes
    assert list(listed) == ["m", "m:high", "plain"]
    assert len({id(one) for one in listed.values()}) == 1, "one policy, one queue, one set of limits"


async def test_aliases_come_and_go(filtered: Filtered) -> None:
    filtered.route(aliases=("a", "b"))
    filtered.route(name="n", aliases=("c",))
    filtered.route(aliases=("b",))
    filtered.route(name="n", aliases=("a",))
    table = filtered.lab.plane.table
    assert {name: route.name for name, route in table.routes.items()} == {"m": "m", "b": "m", "n": "n", "a": "n"}
    table.apply(Tables(version=9, gone_routes=["n"]))
    assert list(table.routes) == ["m", "b"]
    table.apply(Tables(version=10, whole=True, targets=[one.value for one in table.targets.values()]))
    assert table.routes == {}


async def test_an_alias_that_two_routes_swap_in_one_message(filtered: Filtered) -> None:
    def routes(m: str, n: str) -> list[RouteValue]:
        return [RouteValue(name=name, targets=("target:m0",), aliases=(alias,)) for name, alias in (("m", m), ("n", n))]

    table = filtered.lab.plane.table
    for version, told in enumerate((routes("x", "y"), routes("y", "x"), routes("x", "y")[::-1]), 5):
        table.apply(Tables(version=version, routes=told))
        found = {name: route.name for name, route in table.routes.items() if name in "xy"}
        assert found == {one.aliases[0]: one.name for one in told}


async def test_a_form_has_its_fields_changed(filtered: Filtered) -> None:
    filtered.route(models=("whisper",), filters={"m": FilterValue(set={"temperature": "0"}, strip=("prompt",))})

    def part(name: str, content: str, more: str = "") -> str:
        return f'--XX\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{content}\r\n'

    file = part("file", "RIFF", '; filename="a.wav"')
    kind = b"Content-Type: multipart/form-data; boundary=XX"
    body = part("prompt", "x") + file + part("model", "m") + "--XX--\r\n"
    sent = await filtered.sent(body.encode(), kind, path=b"/v1/audio/transcriptions")
    assert sent.decode() == file + part("model", "whisper") + part("temperature", "0") + "--XX--\r\n"
    filtered.route(filters={"m": FilterValue(set={"x": "[1]"})})
    status, said = await filtered.refused(body.encode(), kind, path=b"/v1/audio/transcriptions")
    assert (status, "sets `x` to a list" in said) == (400, True), said


async def test_no_path_leads_around_a_filter(filtered: Filtered) -> None:
    filtered.route(filters={"m": HOT})
    for path in (b"/upstream/m/v1/chat/completions", b"/llama-cpp/m/v1/chat/completions"):
        status, said = await filtered.refused(b'{"model":"m"}', path=path)
        assert (status, "only below /v1" in said) == (400, True), said
    filtered.route()
    assert await filtered.sent(b'{"model":"m"}', path=b"/upstream/m/v1/chat/completions") == b'{"model":"m"}'


async def test_a_body_that_cannot_be_changed_is_refused_and_the_connection_is_kept(filtered: Filtered) -> None:
    filtered.route(filters={"m": HOT})
    body = b'{"model":"m","logit_bias":[' + b'[[[{"x":1}]]],' * 150_000 + b"1]}"
    status, said = await filtered.refused(body)
    assert (status, "too many values" in said) == (400, True), said
    assert filtered.lab.target().breaker.failures == 0
    assert await filtered.sent(b'{"model":"m"}') == b'{"model":"m","temperature":1.5,"y":{"model": null}}'


async def test_a_route_without_filters_costs_nothing(filtered: Filtered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.gateway.worker.exchange.bodies.rewritten", lambda *_: pytest.fail("rewritten"))
    filtered.route()
    assert await filtered.sent(b'{"model":"m"}') == b'{"model":"m"}'
    route = filtered.lab.plane.table.routes["m"]
    assert isinstance(route, Route)
    assert route.filters is None
