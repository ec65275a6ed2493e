"""Spans of requests for OpenTelemetry: made from what workers report, and sent by a thread of the SDK's."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from garrison.base.errors import InvalidError
from garrison.gateway.link.reports import FinishedValue
from garrison.net.threads import start_thread

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["Spans"]

_MOST_WAITING = 8192
_ERROR = 500
_BROKEN = frozenset(("cut-off",))


class Spans:
    """The spans of one server. Those that cannot be sent in time are dropped by the SDK, which says so in the log.

    Args:
        endpoint: where they go, as OTLP over HTTP. Headers, such as keys, come from `OTEL_EXPORTER_OTLP_HEADERS`.
        node: the name of this server.

    Raises:
        InvalidError: the extra is not installed.
    """

    def __init__(self, endpoint: str, node: str, exporter: "SpanExporter | None" = None) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise InvalidError(
                f"traces need a package that is not installed: {error.name}",
                hint="Install it: pip install 'garrison[otel]'",
            ) from None
        self._resource = Resource.create({"service.name": "garrison", "service.instance.id": node})
        self._processor = BatchSpanProcessor(
            exporter or OTLPSpanExporter(endpoint=endpoint), max_queue_size=_MOST_WAITING
        )

    def add(self, requests: Iterable[FinishedValue]) -> None:
        """Send the spans of those whose traces are recorded."""
        for one in requests:
            if one.span_id:
                self._processor.on_end(self._span(one))

    async def close(self, seconds: float) -> None:
        """Send what waits, within a limit. A thread that hangs is left behind."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK has no types there
            loop.call_soon_threadsafe(done.set)

        start_thread(shut_down, "traces")
        await asyncio.wait([asyncio.ensure_future(done.wait())], timeout=seconds)

    def _span(self, one: FinishedValue) -> "ReadableSpan":
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def context(span: str, *, remote: bool) -> SpanContext:
            flags = TraceFlags(TraceFlags.SAMPLED)
            return SpanContext(int(one.trace_id, 16), int(span, 16), is_remote=remote, trace_flags=flags)

        def at(seconds: float) -> int:
            return int((one.at + seconds) * 1e9)

        failed = one.status >= _ERROR or one.outcome in _BROKEN
        times = {"first byte": one.first_byte, "first token": one.first_token}
        return ReadableSpan(
            name=one.path or "request",
            context=context(one.span_id, remote=False),
            parent=context(one.parent_id, remote=True) if one.parent_id else None,
            resource=self._resource,
            kind=SpanKind.SERVER,
            attributes=_attributes(one),
            events=[Event(name, timestamp=at(seconds)) for name, seconds in times.items() if seconds is not None],
            status=Status(StatusCode.ERROR, one.outcome) if failed else Status(),
            start_time=at(0.0),
            end_time=at(one.seconds),
        )


def _attributes(one: FinishedValue) -> dict[str, Any]:
    """Return what is known of a request, under OpenTelemetry's names where it has any."""
    found: dict[str, Any] = {
        "url.path": one.path, "http.response.status_code": one.status, "client.address": one.peer,
        "http.request.body.size": one.bytes_in, "http.response.body.size": one.bytes_out,
        "gen_ai.request.model": one.model, "garrison.route": one.route, "garrison.target": one.target,
        "garrison.outcome": one.outcome, "garrison.request_id": one.request_id, "garrison.stream": one.stream,
        "garrison.retries": one.retries, "garrison.queue_seconds": one.queue, "garrison.wake_seconds": one.wake,
        "garrison.overhead_seconds": one.overhead,
    }  # fmt: skip
    if one.key_id is not None:
        found["garrison.key_id"] = one.key_id
    if one.tokens is not None:
        found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"], _ = one.tokens
    return found
