"""Server-sent events."""

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from garrison.api.feed import FeedEvent

__all__ = ["EVENTS", "EventStream"]

EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events. This is the schema of one.",
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "id": {"type": "string", "description": "Where `Last-Event-ID` resumes; not in every stream."},
                        "event": {"type": "string", "description": "What happened."},
                        "data": {"type": "string", "description": "An object, as JSON."},
                    },
                    "required": ["event", "data"],
                }
            }
        },
    }
}
"""The `responses` of a route that answers with an `EventStream`."""


class EventStream(StreamingResponse):
    """A stream of events, with ids, until the reader leaves.

    Args:
        status_code: FastAPI reads its default for the OpenAPI document.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[FeedEvent], status_code: int = 200) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(_lines(events), status_code, headers)


async def _lines(events: AsyncIterator[FeedEvent]) -> AsyncIterator[bytes]:
    async for one in events:
        if one.kind == "ping":
            yield b": ping\n\n"
            continue
        id_line = f"id: {one.id}\n" if one.id else ""
        yield f"{id_line}event: {one.kind}\ndata: {json.dumps(one.data, ensure_ascii=False)}\n\n".encode()
