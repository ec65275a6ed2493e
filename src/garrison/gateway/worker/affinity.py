"""What requests that should go to the same target have in common, read from a request. Pure."""

from enum import Enum

import msgspec

from garrison.gateway.choose.affinity_key import affinity_key
from garrison.net.http1.limits import HeaderList

__all__ = ["Affinity", "key_of"]

_SESSION = b"x-session-id"
_PROMPT_BYTES = 8192
"""For `prefix`: as many blocks of a prompt as it looks at."""


class Affinity(Enum):
    """What a policy needs to know of a request."""

    SESSION = "session"
    """Its session, else its user, else how its prompt begins."""
    PROMPT = "prompt"
    """Its session, else more of its prompt: prompts of one user that begin differently share nothing."""


class _Fields(msgspec.Struct, frozen=True, gc=False):
    user: msgspec.Raw = msgspec.Raw(b"")
    prompt_cache_key: msgspec.Raw = msgspec.Raw(b"")
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")


_decode = msgspec.json.Decoder(_Fields).decode
_NOTHING = _Fields()
_NULL = b"null"


def key_of(affinity: Affinity, headers: HeaderList, body: bytes, adapter: str) -> bytes | None:
    """Return the key of a request; None if nothing in it says with which others it belongs.

    The session is the header `X-Session-Id`, or `prompt_cache_key` in the body.
    """
    session = next((value for name, value in headers if len(name) == 12 and name.lower() == _SESSION), b"")
    try:
        fields = _NOTHING if session else _decode(body)
    except (msgspec.MsgspecError, RecursionError):  # a form, or what the engine will refuse
        fields = _NOTHING
    session = session or _given(fields.prompt_cache_key)
    prompt = _given(fields.messages) or _given(fields.prompt) or _given(fields.input)
    if affinity is Affinity.PROMPT:
        return affinity_key(adapter, session=session, prompt=prompt, prefix_bytes=_PROMPT_BYTES)
    return affinity_key(adapter, session=session, user=_given(fields.user), prompt=prompt)


def _given(value: msgspec.Raw) -> bytes:
    found = bytes(value)
    return b"" if found in (_NULL, b'""') else found
