"""What routes change in the bodies of requests: made once for each name, when a route is told."""

import json
from collections.abc import Mapping

from garrison.gateway.link.messages import RouteValue
from garrison.gateway.requests.rewrite import Rewrite, rewrite

__all__ = ["filters_of"]


def filters_of(value: RouteValue) -> Mapping[str, Rewrite] | None:
    """Return what changes, by the name that a request was sent to; None for nothing."""
    if not value.filters:
        return None
    return {
        name: rewrite(set={key: json.loads(text) for key, text in told.set.items()}, strip=told.strip)
        for name, told in value.filters.items()
    }
