"""A name behind which there are several models, none of which it means by itself."""

from collections.abc import Sequence

from garrison.base.errors import InvalidError

__all__ = ["needs_one_of"]

_MOST = 8


def needs_one_of(name: str, models: Sequence[str]) -> InvalidError:
    """Return the error for a request that names `name` alone.

    Args:
        models: those that are known; empty where it does not run.
    """
    known = [f"{name}/{one}" for one in models[:_MOST]]
    if not known:
        hint = f"Ask for {name}/MODEL; GET /v1/models lists its models while it runs."
    elif len(known) < len(models):
        hint = f"Ask for one of its models, such as {', '.join(known)}; GET /v1/models lists all {len(models)}."
    else:
        hint = f"Ask for {' or '.join(known)}."
    return InvalidError(f"{name!r} is a router, which has no model of its own", hint=hint, details={"models": known})
