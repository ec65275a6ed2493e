"""What requests that should go to the same target have in common."""

__all__ = ["affinity_key"]

_PREFIX_BYTES = 512


def affinity_key(
    adapter: str = "",
    *,
    session: bytes | None = None,
    user: bytes | None = None,
    prompt: bytes = b"",
    prefix_bytes: int = _PREFIX_BYTES,
) -> bytes | None:
    """Return the key: the session, else the user, else how the prompt begins; None if there is none of them.

    The adapter is part of it, because engines do not share cached blocks between adapters. The key is not a digest:
    `hash` needs one number of it, `prefix` one for each block.

    Args:
        adapter: its name; empty for the base model.
        session: value of the session header.
        user: the field of the body.
        prompt: the prompt or the messages, as sent.
        prefix_bytes: of the prompt that count. For the policy `prefix`, several of its blocks.
    """
    value = session or user or prompt[:prefix_bytes]
    return b"%b\0%b" % (adapter.encode(), value) if value else None
