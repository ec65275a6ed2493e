"""What routes change in the bodies of requests: made once for each name, when a route is told."""

import json
from collections.abc import Mapping

from garrison.base.errors import InvalidError
from garrison.gateway.link.messages import RouteValue
from garrison.gateway.requests.rewrite import Rewrite, rewrite

__all__ = ["filter_for", "filters_of"]


def filters_of(value: RouteValue) -> Mapping[str, Rewrite] | None:
    """Return what changes, by the name that a request was sent to; None for nothing."""
    if not value.filters:
        return None
    return {
        name: rewrite(set={key: json.loads(text) for key, text in told.set.items()}, strip=told.strip)
        for name, told in value.filters.items()
    }


def filter_for(filters: Mapping[str, Rewrite], model: str, *, in_body: bool) -> Rewrite | None:
    """Return what a route changes in a request; None for nothing.

    Args:
        model: the name that the request was sent to.
        in_body: that name stands in its body, which can be changed.

    Raises:
        InvalidError: the request was sent to a path that leads around what the route changes.
    """
    found = filters.get(model)
    if found is not None and not in_body:
        raise InvalidError(
            f"{model} changes parameters of requests, which it can do only below /v1",
            hint="Send the request to a path such as /v1/chat/completions.",
        )
    return found
