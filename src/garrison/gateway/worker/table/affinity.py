"""What requests that should go to the same target have in common, read from a request. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from garrison.gateway.choose.affinity_key import affinity_key
from garrison.gateway.link.route_settings import AffinityValue
from garrison.net.http1.limits import HeaderList

__all__ = ["Affinity", "affinity_of", "key_of"]


@dataclass(frozen=True, slots=True)
class Affinity:
    """What a policy needs to know of a request.

    Attributes:
        header: of a session, in lower case.
        by: `session`, `user` and `prompt`, in the order in which they are asked.
        prompt_bytes: of the prompt that count.
    """

    header: bytes = b"x-session-id"
    by: tuple[str, ...] = ("session", "user", "prompt")
    prompt_bytes: int = 512


_POLICIES: Mapping[str, Affinity] = {
    "hash": Affinity(),
    "sticky": Affinity(),
    # Prompts of one user that begin differently share nothing. As many bytes as there are in the blocks of a key.
    "prefix": Affinity(by=("session", "prompt"), prompt_bytes=8192),
}
_BLOCKS = 16


class _Fields(msgspec.Struct, frozen=True, gc=False):
    user: msgspec.Raw = msgspec.Raw(b"")
    prompt_cache_key: msgspec.Raw = msgspec.Raw(b"")
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")


_decode = msgspec.json.Decoder(_Fields).decode
_NOTHING = _Fields()
_NULL = b"null"


def affinity_of(policy: str, told: AffinityValue | None, *, block: float = 0) -> Affinity | None:
    """Return what a policy needs to know; None for nothing.

    Args:
        block: bytes of a block of `prefix`; 0 for its own.
    """
    found = _POLICIES.get(policy)
    if found is None:
        return None
    if block:
        found = replace(found, prompt_bytes=int(block) * _BLOCKS)
    if told is None:
        return found
    return Affinity(
        told.header.lower().encode() or found.header, told.by or found.by, told.prompt_bytes or found.prompt_bytes
    )


def key_of(affinity: Affinity, headers: HeaderList, body: bytes, adapter: str) -> bytes | None:
    """Return the key of a request; None if nothing in it says with which others it belongs.

    The session is the header, or `prompt_cache_key` in the body.
    """
    wanted, size = affinity.header, len(affinity.header)
    session = next((value for name, value in headers if len(name) == size and name.lower() == wanted), b"")
    by = affinity.by
    try:
        fields = _NOTHING if session and by[0] == "session" else _decode(body)
    except (msgspec.MsgspecError, RecursionError):  # a form, or what the engine will refuse
        fields = _NOTHING
    for kind in by:
        if kind == "session":
            found = affinity_key(adapter, session=session or _given(fields.prompt_cache_key))
        elif kind == "user":
            found = affinity_key(adapter, user=_given(fields.user))
        else:
            prompt = _given(fields.messages) or _given(fields.prompt) or _given(fields.input)
            found = affinity_key(adapter, prompt=prompt, prefix_bytes=affinity.prompt_bytes)
        if found is not None:
            return found
    return None


def _given(value: msgspec.Raw) -> bytes:
    found = bytes(value)
    return b"" if found in (_NULL, b'""') else found
