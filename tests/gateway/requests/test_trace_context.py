"""W3C trace context: which trace a request belongs to."""

import pytest

from garrison.gateway.requests.trace_context import trace_of

ID, PARENT = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
BITS = (0xAB << 64) | 0xCD
NEW_ID, SPAN = b"%032x" % 0xAB, b"%016x" % 0xCD


def given(value: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"Host", b"x"), (b"TraceParent", value)]


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (b"00-%b-%b-01" % (ID, PARENT), 1),
        (b" 00-%b-%b-00 " % (ID, PARENT), 0),
        (b"00-%b-%b-ff" % (ID, PARENT), 3),
        (b"01-%b-%b-01-more" % (ID, PARENT), 1),
    ],
)
def test_a_request_stays_in_its_trace_with_a_span_of_its_own(value: bytes, flags: int) -> None:
    found = trace_of(given(value), BITS, sampled=True)
    assert (found.id, found.span, found.parent, found.flags) == (ID, SPAN, PARENT, flags)
    assert found.line() == b"traceparent: 00-%b-%b-%02x\r\n" % (ID, SPAN, flags)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="none"),
        pytest.param(given(b"ff-%b-%b-01" % (ID, PARENT)), id="a version that cannot be"),
        pytest.param(given(b"00-%b-%b-01-more" % (ID, PARENT)), id="more than version 00 has"),
        pytest.param(given(b"00-%b-%b-01" % (b"0" * 32, PARENT)), id="no trace"),
        pytest.param(given(b"00-%b-%b-01" % (ID, b"0" * 16)), id="no parent"),
        pytest.param(given(b"00-%b-%b-01" % (ID.upper(), PARENT)), id="upper case"),
        pytest.param(given(b"00-%b-%b-01" % (ID, PARENT)) * 2, id="two"),
        pytest.param(given(b"x"), id="something else"),
    ],
)
@pytest.mark.parametrize("sampled", [True, False])
def test_others_begin_a_trace(headers: list[tuple[bytes, bytes]], sampled: bool) -> None:
    found = trace_of(headers, BITS, sampled=sampled)
    assert (found.id, found.span, found.parent, found.sampled) == (NEW_ID, SPAN, b"", sampled)


def test_no_id_is_zero() -> None:
    found = trace_of([], 0, sampled=True)
    assert (int(found.id, 16), int(found.span, 16)) == (1, 1)
