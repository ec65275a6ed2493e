"""Trace context on its way to a target, and what is reported of traces that are recorded."""

import pytest
from gateway_lab import OK, Conn, GatewayLab, Message, chat

from garrison.gateway.worker.accounts.finished import finished_value

ID, PARENT = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
GIVEN = b"00-%b-%b-01" % (ID, PARENT)


async def told(lab: GatewayLab, *headers: bytes) -> Message:
    """What a target gets."""

    async def answers(conn: Conn) -> None:
        while True:
            await conn.request()
            conn.send(OK)

    upstream = await lab.serve(answers)
    assert (await (await lab.client()).ask(chat(b'{"model":"m"}', *headers))).status == 200
    await lab.quiet()
    return upstream.requests[0]


async def test_without_traces_the_context_passes_as_it_is(lab: GatewayLab) -> None:
    asked = await told(lab, b"traceparent: " + GIVEN, b"tracestate: a=1")
    assert (asked.get(b"traceparent"), asked.get(b"tracestate")) == (GIVEN, b"a=1")


@pytest.mark.parametrize("forwarded", ["off", "set"])
async def test_the_target_is_a_child_of_the_gateways_span(lab: GatewayLab, forwarded: str) -> None:
    lab.set(traces=0.0, report_requests=True, forwarded=forwarded)
    asked = await told(lab, b"Traceparent: " + GIVEN, b"tracestate: a=1", b"X-Other: 1")
    (account,), _ = lab.plane.finished.take()
    found = finished_value(account, 0.0)
    assert (found.trace_id, found.parent_id) == (ID.decode(), PARENT.decode())
    assert asked.get(b"traceparent") == f"00-{found.trace_id}-{found.span_id}-01".encode()
    assert (asked.get(b"tracestate"), asked.get(b"x-other")) == (b"a=1", b"1")


@pytest.mark.parametrize("given", [b"", b"traceparent: 00-%b-%b-01" % (b"0" * 32, b"0" * 16)])
async def test_the_state_of_a_trace_that_is_not_continued_goes_no_further(lab: GatewayLab, given: bytes) -> None:
    lab.set(traces=1.0)
    asked = await told(lab, *filter(None, [given]), b"Tracestate: a=1", b"X-Other: 1")
    assert (asked.get(b"tracestate"), asked.get(b"x-other")) == (None, b"1")


@pytest.mark.parametrize("share", [0.0, 1.0])
async def test_a_trace_that_begins_here_is_recorded_as_the_setting_says(lab: GatewayLab, share: float) -> None:
    lab.set(traces=share, report_requests=True)
    asked = await told(lab)
    (account,), _ = lab.plane.finished.take()
    found = finished_value(account, 0.0)
    sent = asked.get(b"traceparent")
    assert sent is not None
    assert (bool(found.span_id), bool(int(sent[-2:], 16) & 1)) == (share == 1.0, share == 1.0)
    assert found.parent_id == ""
