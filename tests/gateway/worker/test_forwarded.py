"""What targets are told about who asked, by setting."""

import pytest
from gateway_lab import OK, Conn, GatewayLab, chat

CLAIMS = (b"X-Forwarded-For: 10.9.9.9", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: public")


async def answers(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(OK)


@pytest.mark.parametrize(
    ("told", "claims", "expected"),
    [
        ("off", (), ([], [], [])),
        ("off", CLAIMS, ([b"10.9.9.9"], [b"https"], [b"public"])),
        ("set", (), ([b"127.0.0.1"], [b"http"], [b"gateway"])),
        ("set", CLAIMS, ([b"127.0.0.1"], [b"http"], [b"gateway"])),
        ("append", (), ([b"127.0.0.1"], [b"http"], [b"gateway"])),
        ("append", CLAIMS, ([b"10.9.9.9, 127.0.0.1"], [b"https"], [b"public"])),
        (
            "append",
            (*CLAIMS, b"X-Forwarded-For: 10.8.8.8"),
            ([b"10.9.9.9, 10.8.8.8, 127.0.0.1"], [b"https"], [b"public"]),
        ),
    ],
)
async def test_forwarded(
    lab: GatewayLab, told: str, claims: tuple[bytes, ...], expected: tuple[list[bytes], list[bytes], list[bytes]]
) -> None:
    lab.set(forwarded=told)
    upstream = await lab.serve(answers)
    client = await lab.client()
    for _ in range(2):
        assert (await client.ask(chat(b'{"model": "m"}', b"X-Other: 1", *claims))).status == 200
    for sent in upstream.requests:
        found = tuple(sent.all(b"x-forwarded-" + name) for name in (b"for", b"proto", b"host"))
        assert found == expected
        assert sent.all(b"x-other") == [b"1"]
