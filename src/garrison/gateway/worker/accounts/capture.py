"""What is kept of one request and its answer, where the settings ask for that: heads, and the beginnings of bodies."""

from typing import TYPE_CHECKING

from garrison.base.redaction import is_secret_header
from garrison.gateway.link.reports import CAPTURE_MARGIN, CapturedMessage, CaptureValue

if TYPE_CHECKING:
    from garrison.gateway.worker.connections.inbound import Request
    from garrison.net.http1.limits import HeaderList
    from garrison.net.http1.responses import ResponseReader

__all__ = ["Capture"]

_MOST_HEADERS = 64
_MOST_LINE = 1024


class Capture:
    """The capture of one request.

    Args:
        most: bytes of each body that are shown.
    """

    __slots__ = ("_answered", "_body", "_head", "_headers", "_pieces", "_request_size", "_room", "_size", "_status")

    def __init__(self, request: "Request", body: bytes, most: int) -> None:
        self._head = request.method + b" " + request.target
        self._headers: HeaderList = request.headers
        self._request_size = len(body)
        self._body = body[: most + CAPTURE_MARGIN]
        self._room = most + CAPTURE_MARGIN
        self._answered: HeaderList = []
        self._pieces: list[bytes] = []
        self._status = self._size = 0

    def begin(self, reader: "ResponseReader") -> None:
        """The answer begins."""
        self._status, self._answered = reader.status, reader.headers

    def piece(self, piece: bytes) -> None:
        """A piece of the answer passes."""
        self._size += len(piece)
        if self._room > 0:
            self._pieces.append(piece[: self._room])
            self._room -= len(piece)

    def value(self, id: str) -> CaptureValue:
        """Return what is reported. Headers that carry credentials are left out, whatever is in them."""
        request = CapturedMessage(
            start=_text(self._head), headers=_lines(self._headers), body=self._body, size=self._request_size
        )
        answer = None
        if self._status:
            answer = CapturedMessage(
                start=str(self._status), headers=_lines(self._answered), body=b"".join(self._pieces), size=self._size
            )
        return CaptureValue(id=id, request=request, answer=answer)


def _lines(headers: "HeaderList") -> list[tuple[str, str]]:
    shown = [(name, value) for name, value in headers if not is_secret_header(name.decode("latin-1"))]
    return [(_text(name), _text(value)) for name, value in shown[:_MOST_HEADERS]]


def _text(line: bytes) -> str:
    return line[:_MOST_LINE].decode("latin-1")
