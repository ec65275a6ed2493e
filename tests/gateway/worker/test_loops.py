"""A declared target that leads back to this server, directly or through another one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gateway_lab import OK, Conn, GatewayLab, chat

from garrison.gateway.link.messages import RouteValue, Tables, TargetValue


async def answers(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(OK)


@pytest.fixture(autouse=True)
async def no_connection_to_itself_is_left(lab: GatewayLab) -> AsyncIterator[None]:
    yield
    for target in lab.targets:
        target.drop_idle()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[GatewayLab]:
    """Another server."""
    made = GatewayLab(tmp_path / "other")
    await made.start()
    made.set(via="garrison-other")
    try:
        yield made
    finally:
        await made.close()


def leads(lab: GatewayLab, to: str, *more: str, model: str = "m") -> None:
    """Have the route `m` of a lab go to a declared target, and to instances."""
    lab.set(via=f"garrison-{lab.port}")
    found = [TargetValue(id="target:x", url=to, model=model, foreign=True)]
    found += [TargetValue(id=f"instance:{number}", url=url) for number, url in enumerate(more)]
    route = RouteValue(name="m", targets=tuple(one.id for one in found), policy="pin")
    lab.plane.table.apply(Tables(version=9, targets=found, routes=[route]))


def at(lab: GatewayLab) -> str:
    return f"http://127.0.0.1:{lab.port}"


async def test_a_target_that_is_this_server(lab: GatewayLab) -> None:
    leads(lab, at(lab))
    client = await lab.client()
    answer = await client.ask(chat())
    assert (answer.status, b"leads back to this server" in answer.body) == (508, True), answer.body
    assert len(lab.plane.inbound) == 2, "it went round once"


async def test_a_target_that_leads_back_through_another_server(lab: GatewayLab, other: GatewayLab) -> None:
    leads(lab, at(other))
    leads(other, at(lab))
    client = await lab.client()
    assert (await client.ask(chat())).status == 508


async def test_another_target_of_the_route_answers(lab: GatewayLab) -> None:
    engine = await lab.upstream(answers)
    leads(lab, at(lab), engine.url)
    client = await lab.client()
    answer = await client.ask(chat())
    assert (answer.status, answer.body) == (200, b"ok")
    assert len(engine.requests) == 1
    assert engine.requests[0].all(b"via") == [b"1.1 garrison-%d" % lab.port]


async def test_a_target_here_under_another_name_is_no_loop(lab: GatewayLab) -> None:
    engine = await lab.upstream(answers)
    leads(lab, at(lab), model="n")
    target = TargetValue(id="instance:n", url=engine.url)
    lab.plane.table.apply(Tables(version=10, targets=[target], routes=[RouteValue(name="n", targets=("instance:n",))]))
    client = await lab.client()
    assert (await client.ask(chat())).body == b"ok"


async def test_what_other_proxies_say_stays_and_means_nothing(lab: GatewayLab) -> None:
    engine = await lab.upstream(answers)
    leads(lab, engine.url)
    client = await lab.client()
    for _ in range(2):
        assert (await client.ask(chat(b'{"model": "m"}', b"Via: 1.1 edge, 1.1 garrison-else"))).body == b"ok"
    assert engine.requests[0].all(b"via") == [b"1.1 garrison-%d" % lab.port, b"1.1 edge, 1.1 garrison-else"]
    lab.tell(engine.url)
    assert (await client.ask(chat())).body == b"ok"
    assert engine.requests[-1].all(b"via") == [], "an instance is not asked to tell"
