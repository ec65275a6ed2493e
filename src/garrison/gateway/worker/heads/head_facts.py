"""What the worker reads in the head of a request: once, also where many requests have the same head."""

from garrison.access.credentials import token_of
from garrison.access.tokens import TokenHasher
from garrison.gateway.requests.paths import Asked, classify
from garrison.gateway.worker.heads.heads import DROPPED_TO_COUNT, DROPPED_UP, passed_lines
from garrison.net.http1.limits import HeaderList
from garrison.net.http1.requests import RequestReader

__all__ = ["HeadFacts", "facts_of"]

_NOTED = frozenset(map(len, ("authorization", "x-api-key", "content-type", "x-request-id")))


class HeadFacts:
    """Attributes:
    request_id: that it was given; empty without one.
    content_type: as text; a form's as sent, others in lower case.
    token: of its credentials; None without any that can be read.
    query: of the target, with the question mark.
    hasher, digest: of the token, as it was digested last; None before that.
    """

    __slots__ = (
        "_asked", "_method", "_passed", "_readable", "_target", "content_type", "digest", "hasher", "query",
        "request_id", "token",
    )  # fmt: skip

    def __init__(self, method: bytes, target: bytes, headers: HeaderList) -> None:
        self._method, self._target = method, target
        self._asked: Asked | None = None
        self._passed: bytes | None = None
        self._readable: bytes | None = None
        self.request_id = b""
        self.content_type = ""
        _, mark, query = target.partition(b"?")
        self.query = mark + query
        given: dict[str, str] = {}
        for name, value in headers:
            if len(name) not in _NOTED:
                continue
            lowered = name.lower()
            if lowered == b"content-type":
                self.content_type = self.content_type or _content_type(value)
            elif lowered == b"x-request-id":
                self.request_id = self.request_id or value
            elif lowered in (b"authorization", b"x-api-key"):
                given[lowered.decode()] = value.decode("latin-1")
        self.hasher: TokenHasher | None = None
        self.digest = b""
        self.token = token_of(given) if given else None

    @property
    def asked(self) -> Asked:
        """What is asked for. Raises as `classify` does."""
        if self._asked is None:
            self._asked = classify(self._method, self._target)
        return self._asked

    def passed(self, headers: HeaderList) -> bytes:
        """Return the lines of its headers that reach a target."""
        if self._passed is None:
            self._passed = passed_lines(headers, DROPPED_UP)
        return self._passed

    def passed_readable(self, headers: HeaderList) -> bytes:
        """Return those lines, and one that has the answer not compressed."""
        if self._readable is None:
            self._readable = b"accept-encoding: identity\r\n" + passed_lines(headers, DROPPED_TO_COUNT)
        return self._readable


def facts_of(reader: RequestReader) -> HeadFacts:
    """Return what is in the head that `reader` has just read, or has read before."""
    known = reader.known
    if known is not None and isinstance(known.derived, HeadFacts):
        return known.derived
    facts = HeadFacts(reader.method, reader.target, reader.headers)
    if known is not None:
        known.derived = facts
    return facts


def _content_type(value: bytes) -> str:
    text = value.decode("latin-1")
    return text if "multipart" in text else text.strip().lower()
