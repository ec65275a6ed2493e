"""Streams are asked for their usage, and clients that did not ask do not see it."""

import json
from typing import Any

import pytest
from gateway_lab import Conn, GatewayLab, Message, chat
from lab_keys import key, told_keys

from garrison.access.permissions import Limits
from garrison.gateway.link.route_settings import FilterValue

WORD = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


async def streams(conn: Conn) -> None:
    while True:
        asked = json.loads((await conn.request()).body)
        options = asked.get("stream_options") or {}
        conn.send(HEAD + chunked(WORD, *([USAGE] if options.get("include_usage") else []), DONE))


def request(**fields: Any) -> bytes:
    return chat(json.dumps({"model": "m", "stream": True, **fields}).encode())


async def asked(lab: GatewayLab, data: bytes, **value: Any) -> tuple[Message, dict[str, Any]]:
    """The answer, and what the target was asked for."""
    upstream = await lab.serve(streams, **value)
    answer = await (await lab.client()).ask(data)
    found: dict[str, Any] = json.loads(upstream.requests[0].body)
    return answer, found


def tokens(lab: GatewayLab) -> tuple[int, int]:
    (use,) = lab.plane.stats.take()
    return use.tokens_in, use.tokens_out


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}])
async def test_a_client_that_did_not_ask_does_not_see_it(lab: GatewayLab, options: Any) -> None:
    lab.set(stream_usage=True)
    given = {} if options is None else {"stream_options": options}
    answer, told = await asked(lab, request(**given), model="engine-name")
    assert told["stream_options"] == {"include_usage": True}
    assert told["model"] == "engine-name"
    assert answer.body == WORD + DONE
    await lab.quiet()
    assert tokens(lab) == (7, 3)


@pytest.mark.parametrize("limits", [False, True])
async def test_it_is_hidden_in_a_stream_whose_length_is_known_too(lab: GatewayLab, limits: bool) -> None:
    lab.set(stream_usage=True)
    if limits:
        lab.plane.callers.set_keys(told_keys(key("ka", limits=Limits(requests_per_minute=9))))
    body = WORD + USAGE + DONE

    async def sized(conn: Conn) -> None:
        while True:
            await conn.request()
            length = b"Content-Length: %d\r\n\r\n" % len(body)
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + length + body)

    await lab.serve(sized)
    client = await lab.client()
    for _ in range(3):  # the head is known by then
        head = (b"Authorization: Bearer ka",) if limits else ()
        answer = await client.ask(chat(json.dumps({"model": "m", "stream": True}).encode(), *head))
        assert answer.status == 200, answer.body
        assert answer.body == WORD + DONE
        assert answer.get(b"content-length") is None
    await lab.quiet()
    assert tokens(lab) == (21, 9)


async def test_a_client_that_asked_sees_it(lab: GatewayLab) -> None:
    lab.set(stream_usage=True)
    answer, _ = await asked(lab, request(stream_options={"include_usage": True}))
    assert answer.body == WORD + USAGE + DONE


@pytest.mark.parametrize(
    ("data", "value"),
    [
        pytest.param(chat(b'{"model": "m"}'), {}, id="no stream"),
        pytest.param(request(), {"engine": "llama_cpp"}, id="an engine that always says it"),
        pytest.param(request(), {"engine": "custom"}, id="an engine that may not know the field"),
        pytest.param(request(), {"hop": True}, id="another server, of which no engine is known"),
        pytest.param(
            chat(b'{"model":"m","stream":true}', path=b"/v1/responses"), {}, id="an API whose streams always say it"
        ),
    ],
)
async def test_others_are_not_asked(lab: GatewayLab, data: bytes, value: dict[str, Any]) -> None:
    lab.set(stream_usage=True)
    answer, told = await asked(lab, data, **value)
    assert "stream_options" not in told
    assert answer.body == WORD + DONE


async def test_nobody_is_asked_where_the_setting_says_so(lab: GatewayLab) -> None:
    lab.set(stream_usage=False)
    _, told = await asked(lab, request())
    assert "stream_options" not in told


async def test_a_route_that_says_what_the_options_are_is_left_alone(lab: GatewayLab) -> None:
    lab.set(stream_usage=True)
    upstream = await lab.upstream(streams)
    lab.tell(upstream.url, route={"filters": {"m": FilterValue(set={"stream_options": "{}"})}})
    answer = await (await lab.client()).ask(request())
    assert json.loads(upstream.requests[0].body)["stream_options"] == {}
    assert answer.body == WORD + DONE


@pytest.mark.parametrize("change", [FilterValue(set={"stream": "false"}), FilterValue(strip=("stream",))])
async def test_a_route_that_decides_whether_there_is_a_stream_is_left_alone(
    lab: GatewayLab, change: FilterValue
) -> None:
    lab.set(stream_usage=True)
    upstream = await lab.upstream(streams)
    lab.tell(upstream.url, route={"filters": {"m": change}})
    await (await lab.client()).ask(request())
    assert "stream_options" not in json.loads(upstream.requests[0].body)


@pytest.mark.parametrize(("engine", "is_asked"), [("vllm", True), ("llama_cpp", False)])
async def test_another_server_is_asked_if_its_engine_takes_it(lab: GatewayLab, engine: str, is_asked: bool) -> None:
    lab.set(stream_usage=True)
    upstream = await lab.upstream(streams)
    lab.tell(upstream.url, route={"facts": {"engine": engine}}, hop=True)
    await (await lab.client()).ask(request())
    assert ("stream_options" in json.loads(upstream.requests[0].body)) is is_asked


async def test_a_client_that_wants_usage_all_the_time_gets_what_it_asked_for(lab: GatewayLab) -> None:
    lab.set(stream_usage=True)
    options = {"continuous_usage_stats": True}
    answer, told = await asked(lab, request(stream_options=options))
    assert told["stream_options"] == options
    assert answer.body == WORD + DONE


async def test_a_stream_that_cannot_be_compressed_is_asked_for(lab: GatewayLab) -> None:
    lab.set(stream_usage=True)
    upstream = await lab.serve(streams)
    await (await lab.client()).ask(chat(b'{"model":"m","stream":true}', b"Accept-Encoding: gzip", b"X-Other: 1"))
    assert upstream.requests[0].all(b"accept-encoding") == [b"identity"]
    assert upstream.requests[0].get(b"x-other") == b"1"


async def test_what_is_held_of_a_stream_that_breaks_off_is_passed_on(lab: GatewayLab) -> None:
    lab.set(stream_usage=True)
    half = b'data: {"choices":[],"usa'

    async def breaks(conn: Conn) -> None:
        await conn.request()
        conn.send(HEAD + b"%x\r\n%b\r\n" % (len(half), half))

    await lab.serve(breaks)
    client = await lab.client()
    client.send(request())
    assert (await client.rest()).endswith(b"\r\n%b\r\n" % half)
