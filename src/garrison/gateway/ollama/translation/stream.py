"""A streamed answer: server-sent events in, lines of JSON out, as they arrive."""

import msgspec

from garrison.gateway.ollama.translation.answers import AnswerReader
from garrison.gateway.ollama.translation.errors import AnswerError
from garrison.gateway.ollama.translation.objects import Form, Piece
from garrison.net.errors import TransportError
from garrison.net.sse import EventReader

__all__ = ["StreamTranslator", "error_line"]

_DONE = "[DONE]"
_MOST_EVENT_BYTES = 4 * 1024 * 1024
_CUT = "the engine's answer ended before it was complete"
_encoded = msgspec.json.Encoder().encode


class StreamTranslator:
    """Translates one stream. What comes out does not depend on how the bytes were split.

    It holds one event, and the call of a tool that is not complete yet, each within a limit.

    Args:
        loaded: when the head of the answer came, in seconds after the request.

    Attributes:
        over: the last line was written; what follows is ignored.
        failed: it was an error.
    """

    def __init__(self, form: Form, loaded: float) -> None:
        self.over = self.failed = False
        self._form = form
        self._loaded = loaded
        self._events = EventReader(_MOST_EVENT_BYTES)
        self._reader = AnswerReader()

    def feed(self, piece: bytes, at: float) -> bytes:
        """Return the lines that a piece of the stream completes.

        Args:
            at: seconds after the request.
        """
        if self.over:
            return b""
        lines: list[bytes] = []
        try:
            for event in self._events.feed(piece):
                if event.data == _DONE:
                    lines.append(self._last(self._reader.finish(), at))
                    break
                found = self._reader.take(event.data, at)
                if found:
                    lines.append(_line(self._form.part(found, at)))
        except AnswerError as error:
            lines.append(self.fail(error.text))
        except TransportError as error:  # of the reader of events: one is too large
            lines.append(self.fail(error.detail))
        return b"".join(lines)

    def end(self, at: float) -> bytes:
        """Return the last line, once the stream has ended. One that said nothing about its end was cut off."""
        if self.over:
            return b""
        return self.fail(_CUT) if self._reader.reason is None else self._last(Piece(), at)

    def fail(self, text: str) -> bytes:
        """Return the last line of a stream that broke off."""
        if self.over:
            return b""
        self.over = self.failed = True
        return error_line(text)

    def _last(self, piece: Piece, at: float) -> bytes:
        self.over = True
        return _line(self._form.last(piece, self._reader.ended(at, self._loaded)))


def error_line(text: str) -> bytes:
    """Return an error as a line of a stream."""
    return _line({"error": text})


def _line(told: object) -> bytes:
    return _encoded(told) + b"\n"
