"""Reads the responses on one connection: turns bytes into calls on a sink, one response per request."""

from typing import NoReturn, Protocol

import httptools

from garrison.net.http1.known_heads import KnownHead, KnownHeads, split_head
from garrison.net.http1.limits import BLANKS, NOTED_LENGTHS, WIRE_FACTOR, HeaderList, head_size, length_of

__all__ = ["ResponseReader", "ResponseSink"]

_VERSIONS = ("1.1", "1.0")
_SWITCHING = 101
_FIRST_FINAL = 200


class ResponseSink(Protocol):
    """Receives what a reader finds, in order of arrival. Details are in the reader's attributes."""

    def response_interim(self, status: int, headers: HeaderList) -> None:
        """A response before the final one (1xx) has arrived."""

    def response_head(self) -> None:
        """The head is complete: `status` and `headers` are set."""

    def response_body(self, piece: bytes) -> None:
        """A piece of the body has arrived."""

    def response_end(self, keep_alive: bool) -> None:
        """The response is complete. Unless `keep_alive`, the connection carries no further request."""

    def response_failed(self, reason: str) -> None:
        """The bytes are not a valid response; the connection is unusable."""


class _Stop(Exception):  # noqa: N818 - leaves the parser from within a callback; it is not an error
    """Stop parsing."""


class ResponseReader:
    """Reads one response after each `expect`. Bytes that arrive without one are an error.

    Args:
        heads: those that need not be read again, of many connections; None to read each.

    Attributes:
        known: the head, where it was known; its headers are then without Content-Length.
        length: of the body, where it was known.
        status: of the final response; 0 until its head is complete.
        headers: its name and value pairs as sent.
        trailers: what came after a chunked body; set when the response ends.
        rest: after 101, what already arrived in the other protocol.
        waiting: a response is expected and not complete.
    """

    __slots__ = (
        "_bodiless",
        "_body_bytes",
        "_complete",
        "_end",
        "_failure",
        "_head_bytes",
        "_head_done",
        "_heads",
        "_keep",
        "_left",
        "_limit",
        "_parser",
        "_received",
        "_sink",
        "_sized",
        "_switch",
        "_trailer_size",
        "headers",
        "known",
        "length",
        "rest",
        "status",
        "trailers",
        "waiting",
    )

    def __init__(self, sink: ResponseSink, *, head_bytes: int = 64 * 1024, heads: KnownHeads | None = None) -> None:
        self._sink = sink
        self._heads = heads
        self.known: KnownHead | None = None
        self.length = 0
        self._head_bytes = head_bytes
        self._parser: httptools.HttpResponseParser | None = None
        self.waiting = False
        self.rest = b""
        self.status = self._limit = 0
        self._received = self._body_bytes = self._trailer_size = 0
        self._bodiless = self._switch = self._head_done = self._sized = self._complete = self._end = False
        self._keep = True
        self._failure = ""
        self.headers: HeaderList = []
        self.trailers: HeaderList = []

    def expect(self, method: str, limit: int, *, switch: bool = False) -> None:
        """Prepare for the response to the request that is about to be sent.

        Args:
            method: a response to HEAD has no body, whatever its headers say.
            limit: bytes of the body.
            switch: accept 101 as a response; otherwise it is an error, since no other protocol was requested.
        """
        self.status = self._received = self._body_bytes = self._trailer_size = 0
        self._head_done = self._sized = self._complete = self._end = False
        self._keep = True
        self._failure = ""
        self.known = None
        if self.trailers:
            self.trailers = []
        self._limit = limit
        self._bodiless = method == "HEAD"
        self._switch = switch
        self.waiting = True

    def feed(self, data: bytes) -> None:
        """Read `data`. Never raises for its content; a sink's own exceptions pass through."""
        if not self.waiting:
            self._fail("the server sent bytes that belong to no request")
            return
        if not self._received and self._heads is not None and not self._bodiless and self._is_known(data, self._heads):
            return
        # A parser is kept from response to response; after HEAD or an early end it stands in the middle of one. Most
        # connections need none, since all the heads that they carry are known.
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
            self._keep = False
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Stop):
                raise (error.__context__ or error) from None
        except httptools.HttpParserError as error:
            self._keep = False
            if not self._complete:
                self._failure = f"the answer is not HTTP: {error}"
        if self._failure:
            self._fail(self._failure)
        elif self._complete:
            self._finish()
        elif not self._head_done and self._received > self._head_bytes + BLANKS:
            self._fail(f"the answer's head is larger than {self._head_bytes} bytes")
        elif self._received > 2 * self._head_bytes + WIRE_FACTOR * self._body_bytes:
            self._fail("the framing of the answer's body is larger than the body justifies")

    def _is_known(self, data: bytes, heads: KnownHeads) -> bool:
        """Report `data` if it is a whole response whose head is known. The parser hears nothing of it."""
        found = split_head(data)
        if found is None:
            return False
        key, start, length = found
        known = heads.get(key)
        if known is None:
            heads.note(key)
            return False
        if len(data) != start + length or length > self._limit:
            return False
        self.known, self.length, self.status, self.headers = known, length, known.status, known.headers
        self._head_done = self._sized = self._complete = self._end = True
        self._sink.response_head()
        if length and self.waiting:
            self._sink.response_body(data[start:])
        if self.waiting:
            self._finish()
        return True

    def eof(self) -> bool:
        """Note that the server closed the connection, and return whether that completed a body without a length.

        If a response was cut short instead, the caller reports that, since it knows why.
        """
        if not self.waiting or not self._head_done or self._sized:
            return False
        self._keep = False
        self._finish()
        return True

    def keep_alive(self) -> bool:
        """Return whether the connection can carry another request after the last, complete response."""
        return self._keep and not self.waiting

    # --- httptools

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False  # a response without a request
            raise _Stop
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._complete:
            return
        if not self._head_done:
            self.headers.append((name, value))  # counted once the head is complete, and until then by what was fed
            return
        self._trailer_size += len(name) + len(value) + 4
        if self._trailer_size > self._head_bytes:
            self._stop(f"the answer's trailer section is larger than {self._head_bytes} bytes")
        self.trailers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < _FIRST_FINAL:
            if status != _SWITCHING:
                self._sink.response_interim(status, self.headers)
                return
            if not self._switch:
                self._stop("the server switched to another protocol without being asked")
        self._check_framing()
        self.status = status
        self._head_done = True
        self._sink.response_head()
        if self._bodiless:
            # httptools cannot be told that no body follows: what it makes of later bytes is dropped with it.
            self._complete_now()

    def on_body(self, body: bytes) -> None:
        if self._complete:
            self._keep = False
            raise _Stop
        self._body_bytes += len(body)
        if self._body_bytes > self._limit:
            self._stop(f"the answer is larger than {self._limit} bytes")
        self._sink.response_body(body)

    def on_message_complete(self) -> None:
        if self._head_done and not self._complete:
            self._complete_now()
            self._end = True

    # ---

    def _check_framing(self) -> None:
        assert self._parser is not None
        version = self._parser.get_http_version()
        if version not in _VERSIONS:
            self._stop(f"the answer is HTTP/{version}")
        for name, value in self.headers:
            size = len(name)
            if size not in NOTED_LENGTHS:
                continue
            if size == 14 and name.lower() == b"content-length":
                self._sized = True
                length = length_of(value)
                if length is None or (length > self._limit and not self._bodiless):
                    self._stop(f"the answer is larger than {self._limit} bytes")
            elif size == 17 and name.lower() == b"transfer-encoding":
                if value.strip(b" \t").lower() != b"chunked" or version != "1.1":
                    self._stop("the answer has a transfer coding other than chunked")
                self._sized = True
        if self._received > self._head_bytes and head_size(self.headers) > self._head_bytes:
            self._stop(f"the answer's head is larger than {self._head_bytes} bytes")

    def _complete_now(self) -> None:
        assert self._parser is not None
        self._complete = True
        self._keep = self._parser.should_keep_alive() and self.status != _SWITCHING

    def _finish(self) -> None:
        """Report the end: after `feed`, since bytes behind the response make the connection useless."""
        self.waiting = False
        if not self._end:
            self._parser = None
        self._sink.response_end(self._keep)

    def _stop(self, reason: str) -> NoReturn:
        self._failure = reason
        raise _Stop

    def _fail(self, reason: str) -> None:
        self.waiting = self._keep = False
        self._parser = None
        self._sink.response_failed(reason)
