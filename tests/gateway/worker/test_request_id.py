"""Each request has an id, which the target and the client both see."""

from gateway_lab import Conn, GatewayLab, chat


async def answers(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def test_one_that_is_given_is_kept_and_a_missing_one_is_made(lab: GatewayLab) -> None:
    upstream = await lab.upstream(answers)
    lab.tell(upstream.url)
    client = await lab.client()
    given = await client.ask(chat(b'{"model":"m"}', b"X-Request-Id: mine"))
    made = [await client.ask(chat(b'{"model":"m"}')) for _ in range(2)]
    refused = await client.ask(chat(b'{"model":"none"}', b"X-Request-Id: other"))
    assert (given.get(b"x-request-id"), refused.get(b"x-request-id")) == (b"mine", b"other")
    ids = [one.get(b"x-request-id") for one in made]
    assert ids[0] != ids[1]
    assert None not in ids
    assert [one.get(b"x-request-id") for one in upstream.requests] == [b"mine", *ids]


async def test_that_of_the_target_is_passed_on(lab: GatewayLab) -> None:
    async def names_it(conn: Conn) -> None:
        await conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n")

    upstream = await lab.upstream(names_it)
    lab.tell(upstream.url)
    found = await (await lab.client()).ask(chat(b'{"model":"m"}'))
    assert found.all(b"x-request-id") == [b"theirs"]
