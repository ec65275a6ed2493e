"""Server-sent events."""

import json
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from garrison.api.feed import FeedEvent

__all__ = ["EventStream"]


class EventStream(StreamingResponse):
    """A stream of events, with ids, until the reader leaves."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[FeedEvent], status_code: int = 200) -> None:
        # FastAPI reads the default of `status_code` for its document.
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(_lines(events), status_code, headers)


async def _lines(events: AsyncIterator[FeedEvent]) -> AsyncIterator[bytes]:
    async for one in events:
        if one.kind == "ping":
            yield b": ping\n\n"
            continue
        id_line = f"id: {one.id}\n" if one.id else ""
        yield f"{id_line}event: {one.kind}\ndata: {json.dumps(one.data, ensure_ascii=False)}\n\n".encode()
