"""What one request uses: tokens against the limits of its key, times, and what is reported when it has ended."""

from bisect import bisect_left
from time import perf_counter
from typing import TYPE_CHECKING

from garrison.gateway.link.reports import GAP_BOUNDS, Phase
from garrison.gateway.requests.paths import Api, Asked
from garrison.gateway.requests.usage_tail import MOST_KEPT, SLACK, shorten, usage_in
from garrison.gateway.usage import UsageReader, estimate

if TYPE_CHECKING:
    from garrison.access.limiter import Admission
    from garrison.gateway.requests.trace_context import Trace
    from garrison.gateway.worker.accounts.capture import Capture
    from garrison.gateway.worker.plane import Plane
    from garrison.net.http1.responses import ResponseReader

__all__ = ["CLIENT_LEFT", "CUT_OFF", "Account"]

CLIENT_LEFT, CUT_OFF = 499, 502
_NONE_USED = (Api.TOKENIZE, Api.DETOKENIZE, Api.COUNT_TOKENS, Api.INPUT_TOKENS, Api.RESPONSE)
"""A response that is read again was counted when it was made."""


class Account:
    """The account of one request. Times are in seconds.

    Two clocks are used: that of the event loop, which costs nothing and stands still within one step of it, and
    `perf_counter` for the gateway's own part.

    Args:
        at: when the request came, on the event loop's clock.
        id: the gateway's own, which no other request has.
        request_id: what the client and the target know it by.
        peer: the address of the client.

    Attributes:
        model: the name that is asked for.
        key: of its caller.
        route, target: names, as far as they are known.
        admissions: as its caller, and its route, have limits.
        tries: how often it was sent.
        status: of its answer; 0 before that begins.
        outcome: as in `FinishedValue`; empty before its end.
        stream: whether it asks for one.
        waited: for a place and for a target. `woken`: the part of it in which an engine was started or woken.
        overhead: in the gateway's own code, but for the pieces of an answer after the first.
        first_byte: until the answer began; None before that.
        capture: what is kept of it and its answer; None where nothing is.
        trace: to which it belongs, where that is recorded; None otherwise.
        gaps: of a stream that has begun, counts by `GAP_BOUNDS`; None for another answer.
        seconds, bytes_in, tokens: as in `FinishedValue`; set at its end.
    """

    __slots__ = (
        "_asked_tokens", "_connects", "_ended", "_full_at", "_head", "_head_at", "_last_at", "_pieces", "_plane",
        "_read_at", "_sent_at", "_token_at", "_usage", "_waits_at", "admissions", "asked_for", "at", "bytes_in",
        "bytes_out", "capture", "first_byte", "gaps", "id", "key", "model", "outcome", "overhead", "peer",
        "request_id", "route", "seconds", "status", "stream", "target", "tokens", "trace", "tries", "waited", "woken",
    )  # fmt: skip

    def __init__(self, plane: "Plane", asked: Asked, at: float, id: bytes, request_id: bytes, peer: str) -> None:
        self._plane, self.asked_for, self.at = plane, asked, at
        self.id, self.request_id, self.peer = id, request_id, peer
        self._asked_tokens = self.status = self.tries = self.bytes_out = 0
        self._read_at = self._sent_at = self._token_at = self._last_at = self._waits_at = self._head_at = 0.0
        self.waited = self.woken = self.overhead = 0.0
        self._pieces: list[bytes] | None = None
        self._head, self._full_at = b"", MOST_KEPT
        self._usage: UsageReader | None = None
        self.model = self.route = self.target = self.outcome = ""
        self.key: int | None = None
        self.admissions: tuple[Admission, ...] = ()
        self.stream = self._ended = self._connects = False
        self.capture: Capture | None = None
        self.trace: Trace | None = None
        self.gaps: list[int] | None = None
        self.first_byte: float | None = None
        self.tokens: tuple[int, int, int] | None = None

    @property
    def counts_tokens(self) -> bool:
        """Whether there is a limit of tokens, so that the answer has to be readable."""
        return bool(self.admissions) and any(one.limits.tokens_per_minute is not None for one in self.admissions)

    @property
    def says_usage(self) -> bool:
        """Whether an answer to it says what it used, as far as engines do."""
        return self.asked_for.api is not None and self._uses

    @property
    def _uses(self) -> bool:
        return self.asked_for.api not in _NONE_USED and not self.asked_for.reads

    @property
    def _of_messages(self) -> bool:
        return self.asked_for.api is Api.MESSAGES or self.asked_for.rest == b"/v1/messages"

    @property
    def phase(self) -> Phase:
        """Where it is."""
        if self.status:
            return Phase.ANSWERING
        if self._sent_at and not self._waits_at:
            return Phase.SENT
        return Phase.WAITING if self._read_at else Phase.READING

    @property
    def first_token(self) -> float | None:
        """Until the first byte of a stream; None before that, and for another answer."""
        return self._token_at - self.at if self._token_at else None

    @property
    def gaps_total(self) -> float:
        """The sum of the gaps of a stream with a first token."""
        return self._last_at - self._token_at

    def ask(self, body: bytes, content_type: str) -> None:
        """Count about what the request itself uses, where there is a limit of tokens."""
        self._asked_tokens = estimate(body, content_type) if self._uses else 0
        self._spend(self._asked_tokens)

    def is_read(self) -> None:
        """The whole request is there."""
        self._read_at = perf_counter()

    def waits(self, *, connects: bool = False) -> None:
        """From now on it waits: for a place, for a target, or, if it `connects`, for a connection."""
        self._waits_at, self._connects = perf_counter(), connects

    def goes_on(self, wake: float = 0.0) -> None:
        """The wait is over.

        Args:
            wake: seconds of it in which the target was started.
        """
        if not self._waits_at:
            return
        seconds = perf_counter() - self._waits_at
        self._waits_at = 0.0
        self._read_at += seconds
        if not self._connects:
            self.waited += seconds
            self.woken += min(wake, seconds)

    def is_sent(self) -> None:
        """It was sent to a target."""
        if not self._sent_at:  # else it is a retry, and the time since then was no overhead
            self._sent_at = perf_counter()
            self.overhead = self._sent_at - self._read_at

    def begin(self, reader: "ResponseReader", now: float) -> bytes:
        """The answer begins. Return its `Server-Timing`, a header line.

        An answer that is no success uses nothing, nor does one that only counts tokens.
        """
        self.status, self.first_byte = reader.status, now - self.at
        self._head_at = head_at = perf_counter()
        if self.stream and 200 <= reader.status < 300:
            self.gaps = [0] * (len(GAP_BOUNDS) + 1)
        if self._uses:
            self._pieces = []
        if self.counts_tokens:
            self._begin_counting(reader)
        if self.capture is not None:
            self.capture.begin(reader)
        times = (head_at - self._sent_at) * 1e3, self.overhead * 1e3
        if not self.waited:
            return b"server-timing: upstream;dur=%.1f, gateway;dur=%.3f\r\n" % times
        waits = (self.waited - self.woken) * 1e3, self.woken * 1e3
        text = b"server-timing: queue;dur=%.1f, wake;dur=%.1f, upstream;dur=%.1f, gateway;dur=%.3f\r\n"
        return text % (*waits, *times)

    def piece(self, piece: bytes) -> None:
        """A piece of the answer passes."""
        self.bytes_out += len(piece)
        pieces = self._pieces
        if pieces is not None:
            pieces.append(piece)
            if self.bytes_out > self._full_at:
                self._head = shorten(pieces, self._head, messages=self._of_messages)
                self._full_at = self.bytes_out + SLACK
        if self.capture is not None:
            self.capture.piece(piece)
        if self._usage is not None:
            self._usage.feed(piece)
            self._spend(self._usage.tokens)

    def written(self, now: float) -> None:
        """What has arrived at once was passed on."""
        if self._token_at:
            assert self.gaps is not None
            self.gaps[bisect_left(GAP_BOUNDS, now - self._last_at)] += 1
            self._last_at = now
            return
        if self.gaps is not None and self.bytes_out:
            self._token_at = self._last_at = now
        if self._head_at:
            self.overhead += perf_counter() - self._head_at
            self._head_at = 0.0

    def complete(self) -> None:
        """The answer is complete."""
        self.outcome = "ok"
        if self._usage is not None:
            self._usage.close()
            self._spend(self._usage.tokens)

    def end(self, status: int, outcome: str, size: int) -> None:
        """The request has ended. A second call has no effect.

        Args:
            status: where the answer has not begun.
            outcome: where it is not complete.
            size: bytes of its body.
        """
        if self._ended:
            return
        self._ended = True
        self.goes_on()
        self.seconds = self._plane.now() - self.at
        self.outcome = self.outcome or outcome
        self.status = self.status or status
        self.bytes_in = size
        pieces, self._pieces = self._pieces, None
        if pieces:
            self.tokens = usage_in(pieces, self._head, messages=self._of_messages)
        if self.route:
            self._plane.stats.record(self)
        self._plane.finished.add(self)
        for one in self.admissions:
            one.by.end(one, self._plane.now())

    def _begin_counting(self, reader: "ResponseReader") -> None:
        if not 200 <= reader.status < 300 or not self._uses:
            self._spend(0)
            return
        kind = next((value for name, value in reader.headers if name.lower() == b"content-type"), b"")
        self._usage = UsageReader(kind.decode("latin-1"), self._asked_tokens)

    def _spend(self, tokens: int) -> None:
        for one in self.admissions:
            one.by.spend(one, self._plane.now(), tokens)
