"""W3C trace context: which trace a request belongs to, and the header that tells a target. Pure."""

import re
from typing import NamedTuple

from garrison.net.http1.limits import HeaderList

__all__ = ["TRACEPARENT", "Trace", "trace_of"]

TRACEPARENT = b"traceparent"
_FORMAT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01
_RANDOM_ID = 0x02


class Trace(NamedTuple):
    """A request in its trace. Ids are in hexadecimal digits.

    Attributes:
        span: of this request, in this gateway.
        parent: of whoever sent it; empty where it begins the trace.
    """

    id: bytes
    span: bytes
    parent: bytes
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether it is recorded."""
        return bool(self.flags & _SAMPLED)

    def line(self) -> bytes:
        """Return the header for a target, whose spans are children of this one."""
        return b"traceparent: 00-%b-%b-%02x\r\n" % (self.id, self.span, self.flags)


def trace_of(headers: HeaderList, bits: int, *, sampled: bool) -> Trace:
    """Return the trace of a request: the one it names, or a new one.

    Args:
        bits: 192 random ones.
        sampled: whether a new one is recorded. A trace that is named says so itself.
    """
    span = b"%016x" % ((bits & (2**64 - 1)) or 1)
    given = [value for name, value in headers if len(name) == 11 and name.lower() == TRACEPARENT]
    found = _FORMAT.fullmatch(given[0].strip()) if len(given) == 1 else None
    if found is not None:
        version, trace, parent, flags, more = found.groups()
        is_known = version == b"00" and more is None
        if (is_known or b"00" < version < b"ff") and trace.strip(b"0") and parent.strip(b"0"):
            return Trace(trace, span, parent, int(flags, 16) & (_SAMPLED | _RANDOM_ID))
    return Trace(b"%032x" % ((bits >> 64) or 1), span, b"", _RANDOM_ID | (_SAMPLED if sampled else 0))
