"""Limits on what a peer may send, framing overhead included. Pure."""

from dataclasses import dataclass

__all__ = ["BLANKS", "NOTED_LENGTHS", "WIRE_FACTOR", "HeaderList", "Limits", "head_size", "length_of"]

BLANKS = 1024
"""Bytes by which a head may exceed its limit before it is complete: blanks around values are not counted one by one."""
WIRE_FACTOR = 9
"""Bytes on the wire for each byte of a body, beside a fixed allowance. The smallest chunk takes six bytes for its one.
Without a bound, chunk extensions carry an endless stream that no limit of the body sees."""
NOTED_LENGTHS = frozenset(map(len, ("expect", "content-length", "transfer-encoding")))
"""Lengths of the header names that matter for framing; most others are skipped by their length alone."""
_MOST_DIGITS = 20

HeaderList = list[tuple[bytes, bytes]]
"""Names and values as they arrived, in order."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes.

    Attributes:
        head_bytes: of a request line or a status line with its headers; of the trailers; of the framing around a body.
        body_bytes: of one body, after chunked coding is removed.
    """

    head_bytes: int = 64 * 1024
    body_bytes: int = 64 * 1024 * 1024


def head_size(headers: HeaderList) -> int:
    """Return the size of headers in bytes, without blanks around values."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


def length_of(value: bytes) -> int | None:
    """Read a Content-Length that llhttp has accepted; None if it has more digits than any length needs.

    llhttp skips blanks and leading zeros. Thousands of zeros would make `int` raise.
    """
    digits = value.strip(b" \t")
    return int(digits) if len(digits) <= _MOST_DIGITS and digits.isdigit() else None
