"""What workers report about requests: sums since the last report, those that have ended, those in progress.

Sums are sent twice. `Used` feeds metrics, which begin anew with each server, so that it may be lost with one. `Spent`
is what is stored: it is sent again until the control process says that it is on disk (`SpentStored`).
"""

from enum import StrEnum

import msgspec

__all__ = [
    "CAPTURE_MARGIN",
    "FIRST_BYTE_BOUNDS",
    "GAP_BOUNDS",
    "OVERHEAD_BOUNDS",
    "SECONDS_BOUNDS",
    "WAIT_BOUNDS",
    "Cancel",
    "Cancelled",
    "CaptureValue",
    "Captured",
    "CapturedMessage",
    "Finished",
    "FinishedValue",
    "HistogramValue",
    "InProgressValue",
    "ListLive",
    "LiveRequests",
    "LiveValue",
    "Phase",
    "Spent",
    "SpentStored",
    "SpentValue",
    "UseValue",
    "Used",
    "histogram",
]

SECONDS_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
FIRST_BYTE_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
GAP_BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0)
OVERHEAD_BOUNDS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1)
WAIT_BOUNDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

CAPTURE_MARGIN = 1024
"""Bytes at the end of what is kept of a longer body that are not shown: a secret that is cut there cannot be found."""


class HistogramValue(msgspec.Struct, array_like=True):
    """How many values fell below each bound, and, at the end, above all; and their sum."""

    counts: list[int]
    total: float = 0.0


def histogram(bounds: tuple[float, ...]) -> HistogramValue:
    """Return an empty one."""
    return HistogramValue([0] * (len(bounds) + 1))


class UseValue(msgspec.Struct, kw_only=True):
    """Requests of one key to one target by one route, since the last time. Times are in seconds.

    Attributes:
        statuses: how many were answered with each.
        failed: those answered with an error, stopped, or broken off by their target.
        client_left: those whose client left before the answer was complete.
        seconds: until the end of the answer.
        first_bytes: until its first byte, where there was an answer.
        first_tokens: until the first byte of its body, of streams.
        gaps: between two reads of a stream.
        overheads: in the gateway's own code.
        waits: for a place or for a target, of requests that waited.
        uncounted: those that succeeded without saying what they used.
    """

    route: str
    target: str
    key_id: int | None
    statuses: dict[int, int] = {}
    failed: int = 0
    client_left: int = 0
    seconds: HistogramValue
    first_bytes: HistogramValue
    first_tokens: HistogramValue
    gaps: HistogramValue
    overheads: HistogramValue
    waits: HistogramValue
    retries: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    uncounted: int = 0


class InProgressValue(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in progress of one key to one target by one route.

    Attributes:
        waiting: of `count`, those that wait for a place, for a target or for a connection.
    """

    route: str
    target: str
    key_id: int | None
    count: int
    waiting: int


class Used(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What requests were and took since the last time.

    Attributes:
        in_progress: as of now, all of them.
        breakers: targets whose breaker is not closed, with its state.
    """

    uses: list[UseValue]
    in_progress: list[InProgressValue] = []
    breakers: dict[str, str] = {}


class SpentValue(msgspec.Struct, kw_only=True):
    """Sums of one key and route; see `store.usage_store.Usage`."""

    route: str
    key_id: int | None
    requests: int = 0
    failed: int = 0
    client_left: int = 0
    uncounted: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0


class Spent(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A batch of sums to store. The next one is sent once this is on disk.

    Attributes:
        source: a random name of the worker.
        number: of its batches, from 1.
        ends: the worker ends, and waits until this is on disk.
    """

    source: str
    number: int
    rows: list[SpentValue]
    ends: bool = False


class FinishedValue(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One request that has ended. Times are in seconds.

    Attributes:
        id: the gateway's own; unique.
        request_id: what the client and the target know it by.
        at: when it came, in Unix time.
        model: the name that was asked for.
        route, target: empty where none was found.
        path: as the client wrote it, without the query.
        outcome: `ok`, `client-left`, `stopped` by an operator, `cut-off` where the target broke off its answer, or the
            code of the error that the client got.
        queue, wake: waiting for room, and for the start or wake of the engine that followed.
        first_byte, first_token: from `at`; None where there was none.
        overhead: in the gateway's own code.
        trace_id, span_id, parent_id: in a trace that is recorded; empty otherwise.
        tokens: of the prompt, of the answer, and those of the prompt that were cached; None where it did not say.
    """

    id: str
    at: float
    model: str = ""
    path: str = ""
    route: str = ""
    target: str = ""
    key_id: int | None = None
    request_id: str = ""
    peer: str = ""
    status: int = 0
    outcome: str = "ok"
    stream: bool = False
    seconds: float = 0.0
    queue: float = 0.0
    wake: float = 0.0
    overhead: float = 0.0
    first_byte: float | None = None
    first_token: float | None = None
    tokens: tuple[int, int, int] | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    retries: int = 0
    trace_id: str = ""
    span_id: str = ""
    parent_id: str = ""


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Requests that have ended since the last time, oldest first. `lost`: further ones, which were too many."""

    requests: list[FinishedValue]
    lost: int = 0


class CapturedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A request or an answer: its head, and the beginning of its body.

    Attributes:
        start: method and target, or the status.
        size: bytes of the whole body.
    """

    start: str
    headers: list[tuple[str, str]]
    body: bytes
    size: int


class CaptureValue(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one request and its answer. `id`: as in `FinishedValue`."""

    id: str
    request: CapturedMessage
    answer: CapturedMessage | None = None


class Captured(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A capture, where the settings ask for that."""

    capture: CaptureValue


class Phase(StrEnum):
    """Where a request in progress is."""

    READING = "reading"
    """Its body is arriving."""
    WAITING = "waiting"
    """It waits for a place, for its target or for a connection."""
    SENT = "sent"
    """Its target has it, and has not answered yet."""
    ANSWERING = "answering"


class LiveValue(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One request in progress; see `FinishedValue`.

    Attributes:
        seconds: since it came.
    """

    id: str
    at: float
    phase: Phase
    seconds: float
    model: str = ""
    path: str = ""
    route: str = ""
    target: str = ""
    key_id: int | None = None
    request_id: str = ""
    peer: str = ""
    stream: bool = False
    bytes_in: int = 0
    bytes_out: int = 0


class SpentStored(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To a worker: the batch of `Spent` with this number, and all before it, are on disk."""

    number: int


class ListLive(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To a worker: say which requests are in progress, at most so many; answered by `LiveRequests`."""

    id: int
    most: int


class LiveRequests(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `ListLive`: requests in progress, oldest first. `more`: further ones, which are left out."""

    id: int
    requests: list[LiveValue]
    more: int = 0


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To a worker: end the request of that id, if it is in progress; answered by `Cancelled`."""

    id: int
    request: str


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Cancel`. `found`: it was in progress here, and has ended now."""

    id: int
    found: bool
