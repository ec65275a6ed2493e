"""Versions of one adapter on one target, each under a name of its own. Pure.

While an adapter is updated, two of them are served: the one that answers, and the one that replaces it. Which one
answers follows from what is on record: a version is recorded when its probe has answered.
"""

from collections.abc import Iterable

from garrison.fleet.values.causes import INTERRUPTED
from garrison.store.records import Resource

__all__ = ["answering", "is_probed", "public_name"]


def public_name(resource: Resource) -> str:
    """Return the name that clients use for an adapter, whatever it is called on the target."""
    return str(resource.spec.get("lora_name") or resource.key.name)


def is_probed(resource: Resource) -> bool:
    """Return whether a version was seen to answer. Of one that a killed command had loaded, that is not known."""
    return resource.cause != INTERRUPTED


def answering(versions: Iterable[Resource], declared: str | None) -> Resource | None:
    """Return which version answers requests, of those that are served under one public name at one target.

    It is the declared one once its probe has answered, before that the newest that was probed. One that was never
    probed answers only where there is no other.

    Args:
        declared: the name of the declared version; None if none is declared any more.
    """
    return max(
        versions,
        key=lambda one: (is_probed(one), is_probed(one) and one.key.name == declared, one.at, one.key.name),
        default=None,
    )
