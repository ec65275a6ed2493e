"""Takes the usage out of a stream whose client did not ask for it: the one event that has it. Pure."""

import re

import msgspec

__all__ = ["HiddenUsage"]

_MOST_HELD = 16 * 1024
"""Of an event that is not complete. A longer one is passed on as it arrives."""
_END = re.compile(rb"\r?\n\r?\n")
_USAGE, _DATA = b'"usage"', b"data:"


class _Event(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: msgspec.Raw = msgspec.Raw(b"")


_decode = msgspec.json.Decoder(_Event).decode


class HiddenUsage:
    """Reads one stream piece by piece. How it was split makes no difference.

    Pieces of whole events that do not say `usage`, which is nearly all of them, are passed on as they are. An event
    that has not arrived completely is held until it has: no client can use a part of one.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Return what is passed on; perhaps nothing yet."""
        if not self._held and _USAGE not in piece and piece.endswith(b"\n\n"):
            return piece
        return self._sifted(piece)

    def rest(self) -> bytes:
        """Return what is held at the end of the stream."""
        held, self._held = self._held, b""
        return held

    def _sifted(self, piece: bytes) -> bytes:
        data = self._held + piece
        passed: list[bytes] = []
        at = 0
        for end in _END.finditer(data):
            event = data[at : end.end()]
            if not _is_usage(event):
                passed.append(event)
            at = end.end()
        self._held = data[at:]
        if len(self._held) > _MOST_HELD:
            passed.append(self.rest())
        return b"".join(passed)


def _is_usage(event: bytes) -> bool:
    """Whether an event has usage and no part of an answer."""
    if _USAGE not in event:
        return False
    data = [line for line in event.splitlines() if line.startswith(_DATA)]  # beside `id:` and `event:`
    if len(data) != 1:
        return False
    try:
        found = _decode(data[0][len(_DATA) :])
    except (msgspec.MsgspecError, RecursionError):
        return False
    return found.choices == [] and bytes(found.usage).startswith(b"{")
