"""Spans of requests, as OpenTelemetry's SDK sends them."""

import sys
from collections.abc import Sequence

import pytest

from garrison.base.errors import InvalidError
from garrison.gateway.link.reports import FinishedValue
from garrison.server.workers.spans import Spans

sdk = pytest.importorskip("opentelemetry.sdk.trace")
export = pytest.importorskip("opentelemetry.sdk.trace.export")

ID, SPAN, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "00f067aa0ba902b8"


class Exporter(export.SpanExporter):  # type: ignore[misc, name-defined]  # only known when it is installed
    def __init__(self) -> None:
        self.spans: list[sdk.ReadableSpan] = []  # type: ignore[name-defined]

    def export(self, spans: "Sequence[sdk.ReadableSpan]") -> object:  # type: ignore[name-defined]
        self.spans += spans
        return export.SpanExportResult.SUCCESS


def request(**values: object) -> FinishedValue:
    plain = {"id": "a", "at": 1e9, "path": "/v1/chat/completions", "model": "m", "status": 200, "seconds": 2.5,
             "trace_id": ID, "span_id": SPAN}  # fmt: skip
    return FinishedValue(**plain | values)  # type: ignore[arg-type]  # by name


async def sent(*requests: FinishedValue) -> "list[sdk.ReadableSpan]":  # type: ignore[name-defined]
    exporter = Exporter()
    spans = Spans("http://127.0.0.1:9/v1/traces", "box", exporter)
    spans.add(requests)
    await spans.close(5)
    return exporter.spans


async def test_a_span_has_the_times_and_the_tokens_of_its_request() -> None:
    (span,) = await sent(request(parent_id=PARENT, first_byte=0.5, tokens=(7, 3, 1), key_id=5, peer="::1"))
    assert (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}") == (ID, SPAN)
    assert (f"{span.parent.span_id:016x}", span.parent.is_remote) == (PARENT, True)
    assert (span.start_time, span.end_time) == (10**18, 10**18 + 2_500_000_000)
    assert [(one.name, one.timestamp) for one in span.events] == [("first byte", 10**18 + 500_000_000)]
    assert span.attributes["gen_ai.usage.output_tokens"] == 3
    assert span.attributes["http.response.status_code"] == 200
    assert (span.attributes["garrison.key_id"], span.status.is_ok) == (5, True)
    assert span.resource.attributes["service.name"] == "garrison"
    assert span.resource.attributes["service.instance.id"] == "box"


@pytest.mark.parametrize("values", [{"status": 502}, {"outcome": "cut-off"}])
async def test_what_failed_is_an_error(values: dict[str, object]) -> None:
    (span,) = await sent(request(**values))
    assert not span.status.is_ok


async def test_what_is_in_no_recorded_trace_is_not_sent() -> None:
    assert await sent(request(trace_id="", span_id="")) == []


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InvalidError) as raised:
        Spans("http://127.0.0.1:9/v1/traces", "box")
    assert raised.value.hint == "Install it: pip install 'garrison[otel]'"
