"""Reads the requests of one connection: turns bytes into calls on a sink, or into a refusal."""

from dataclasses import dataclass
from typing import NoReturn, Protocol

import httptools

from garrison.net.http1.known_heads import KnownHead, KnownHeads, split_head
from garrison.net.http1.limits import BLANKS, NOTED_LENGTHS, WIRE_FACTOR, HeaderList, Limits, head_size, length_of

__all__ = ["Refusal", "RequestReader", "RequestSink"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection is closed: the status to answer with, and the reason for a log."""

    status: int
    reason: str


class RequestSink(Protocol):
    """Receives what a reader finds, in order of arrival. Details are in the reader's attributes."""

    def request_head(self) -> None:
        """A head is complete: `method`, `target`, `headers` and `http10` are set."""

    def request_body(self, piece: bytes) -> None:
        """A piece of the body has arrived."""

    def request_end(self, keep_alive: bool) -> None:
        """The request is complete. Unless `keep_alive`, nothing after it is read as a request."""

    def request_refused(self, refusal: Refusal) -> None:
        """Answer with the status and close: it is not known where the next request begins."""


class _Stop(Exception):  # noqa: N818 - leaves the parser from within a callback; it is not an error
    """Stop parsing."""


class _BodyOnly:
    """Callbacks for a body whose head was read before."""

    __slots__ = ("on_body", "on_message_complete")

    def __init__(self, reader: "RequestReader") -> None:
        self.on_body = reader.on_body
        self.on_message_complete = reader.on_message_complete


class RequestReader:
    """Reads the requests of one connection, pipelined ones included.

    Args:
        heads: those that need not be read again, of many connections; None to read each.

    Attributes:
        known: the head, where it was known; its headers are then without Content-Length.
        length: of the body; None for a chunked one.
        method, target: as sent; valid from a head until the next request begins. `target` is not decoded.
        headers: name and value pairs as sent; trailers are dropped.
        http10: the client speaks HTTP/1.0.
        expects_continue: the client waits for `100 Continue` before it sends the body.
        upgrade: the client asks for another protocol, or for a tunnel (CONNECT). The request ends as usual and is the
            last one; bytes after it are in `rest`, for a caller that switches.
        under_way: a request is incomplete. Blank lines before a request do not count.
        open: more can follow.
    """

    __slots__ = (
        "_body_bytes",
        "_fed",
        "_head_bytes",
        "_heads",
        "_most_body",
        "_most_head",
        "_parser",
        "_refusal",
        "_sink",
        "_skipped",
        "_trailer_size",
        "_wire_bytes",
        "expects_continue",
        "headers",
        "http10",
        "known",
        "length",
        "method",
        "open",
        "rest",
        "target",
        "under_way",
        "upgrade",
    )

    def __init__(self, sink: RequestSink, limits: Limits, heads: KnownHeads | None = None) -> None:
        self._sink = sink
        self._heads = heads
        self.known: KnownHead | None = None
        self.length: int | None = 0
        self._most_head = limits.head_bytes
        self._most_body = limits.body_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._refusal: Refusal | None = None
        self._head_bytes = 0
        self._fed = 0
        self._trailer_size = 0
        self._body_bytes = 0
        self._wire_bytes = 0
        self.method = self.target = self.rest = b""
        self.headers: HeaderList = []
        self.http10 = self.expects_continue = self.upgrade = self.under_way = False
        self._skipped = b""
        self.open = True

    def feed(self, data: bytes) -> None:
        """Read `data`. Never raises for its content; a sink's own exceptions pass through."""
        if not self.open:
            return
        if self._heads is not None and not self.under_way and not self._head_bytes:
            data = self._read_known(data, self._heads)
            if not data:
                return
        # Bytes are counted before they are parsed, since httptools reports nothing about an unfinished line.
        size = len(data)
        if self._head_bytes >= 0:
            self._head_bytes += size
            self._fed = self._head_bytes
        else:
            self._wire_bytes += size
            self._fed = size
        self._parse(data)
        # Complete messages reset both counters, so this is rarely more than two comparisons.
        if self._refusal is None and (self._head_bytes > self._most_head or self._wire_bytes > self._most_head):
            self._check_unfinished()
        if self._refusal is not None:
            self.open = False
            self._sink.request_refused(self._refusal)

    def _read_known(self, data: bytes, heads: KnownHeads) -> bytes:
        """Report the requests at the beginning of `data` that are complete and whose heads are known; return the rest.

        The parser hears nothing of them. It stands between two requests, before as after.
        """
        while data and self.open:
            found = split_head(data)
            if found is None:
                break
            key, start, length = found
            known = heads.get(key)
            end = start + length
            if known is None:
                heads.note(key)
                break
            if length > self._most_body or len(data) < end:
                break
            self.known, self.method, self.target, self.headers = known, known.method, known.target, known.headers
            self.http10 = self.expects_continue = self.upgrade = False
            self.length = length
            self._sink.request_head()
            if length:
                self._sink.request_body(data[start:end])
            self._sink.request_end(True)
            data = data[end:]
        self.known = None
        return data

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._skipped:
                self._read_skipped_body(rest)
            else:
                self.rest = rest
                self.open = False
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Stop):
                raise (error.__context__ or error) from None
        except httptools.HttpParserError as error:
            if self.open:
                self._refusal = Refusal(400, str(error))

    def _read_skipped_body(self, rest: bytes) -> None:
        """Read the body of a request with an Upgrade header, which httptools takes for the other protocol.

        Java's client offers h2c with every request, bodies included, and expects to be answered in HTTP/1.1.
        """
        self._parser = httptools.HttpRequestParser(_BodyOnly(self))
        self._parser.feed_data(b"POST / HTTP/1.1\r\nconnection: close\r\n%b\r\n\r\n" % self._skipped)
        self._skipped = b""
        self._parse(rest)

    def _check_unfinished(self) -> None:
        if not self.open:
            return
        if self._head_bytes > self._most_head + BLANKS:
            self._refusal = Refusal(431, f"the head is larger than {self._most_head} bytes")
        elif self._wire_bytes > self._most_head + WIRE_FACTOR * self._body_bytes:
            self._refusal = Refusal(413, "the framing of the body is larger than the body justifies")

    # --- httptools

    def on_message_begin(self) -> None:
        if not self.open:
            raise _Stop
        self.under_way = True
        self._body_bytes = self._wire_bytes = 0
        self.target = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_bytes >= 0:
            self.headers.append((name, value))  # counted once the head is complete, and until then by what was fed
            return
        self._trailer_size += len(name) + len(value) + 4
        if self._trailer_size > self._most_head:
            self._refuse(431, f"the trailer section is larger than {self._most_head} bytes")

    def on_headers_complete(self) -> None:
        self._head_bytes = -1
        self._trailer_size = 0
        parser = self._parser
        version = parser.get_http_version()
        self.http10 = version == "1.0"
        if version != "1.1" and not self.http10:
            self._refuse(505, f"HTTP/{version} is not supported")
        self.method = parser.get_method()
        self.upgrade = parser.should_upgrade()
        self.expects_continue = False
        self.length = 0
        body = b""
        for name, value in self.headers:
            size = len(name)
            if size not in NOTED_LENGTHS:
                continue
            if size == 14 and name.lower() == b"content-length":
                length = length_of(value)
                if length is None:
                    self._refuse(400, "Content-Length is not a number")
                elif length > self._most_body:
                    self._refuse(413, f"the body is larger than {self._most_body} bytes")
                self.length = length
                body = b"content-length: %d" % length if length else b""
            elif size == 17 and name.lower() == b"transfer-encoding":
                # A coding that another server on the way reads differently is how requests are smuggled.
                if self.http10:
                    self._refuse(400, "Transfer-Encoding in HTTP/1.0")
                if value.strip(b" \t").lower() != b"chunked":
                    self._refuse(501, "a transfer coding other than chunked")
                self.length = None
                body = b"transfer-encoding: chunked"
            elif size == 6 and name.lower() == b"expect":
                self.expects_continue = not self.http10 and value.strip(b" \t").lower() == b"100-continue"
        # Few heads can be too large, so few are added up.
        if self._fed > self._most_head and head_size(self.headers) + len(self.target) > self._most_head:
            self._refuse(431, f"the head is larger than {self._most_head} bytes")
        if self.upgrade and self.method != b"CONNECT":
            self._skipped = body
        self._sink.request_head()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._most_body:
            self._refuse(413, f"the body is larger than {self._most_body} bytes")
        self._sink.request_body(body)

    def on_message_complete(self) -> None:
        if self._skipped:
            return
        self.under_way = False
        self._head_bytes = 0
        keep_alive = self._parser.should_keep_alive() and not self.upgrade
        if not keep_alive:
            self.open = False
        self._sink.request_end(keep_alive)

    # ---

    def _refuse(self, status: int, reason: str) -> NoReturn:
        self._refusal = Refusal(status, reason)
        raise _Stop
