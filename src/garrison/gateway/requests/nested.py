"""A name behind which there are several models, none of which it means by itself."""

from collections.abc import Sequence

from garrison.base.errors import InvalidError

__all__ = ["needs_one_of"]

_MOST = 8


def needs_one_of(name: str, known: Sequence[str]) -> InvalidError:
    """Return the error for a request that names `name` alone.

    Args:
        known: whole names of its models; empty where none are known.
    """
    shown = list(known[:_MOST])
    if not shown:
        hint = f"Ask for {name}/MODEL; GET /v1/models lists its models while it runs."
    elif len(shown) < len(known):
        hint = f"Ask for one of its models, such as {', '.join(shown)}; GET /v1/models lists all {len(known)}."
    else:
        hint = f"Ask for {' or '.join(shown)}."
    return InvalidError(f"{name!r} is a router, which has no model of its own", hint=hint, details={"models": shown})
