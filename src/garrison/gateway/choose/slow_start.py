"""The weight of a target that has just recovered. Its caches are cold, and it may be about to fail again."""

__all__ = ["ramped"]

_LEAST_SHARE = 0.1
"""With less it would see no request on a quiet route, and so never be tried."""


def ramped(weight: float, since: float, window: float) -> float:
    """Return the effective weight `since` seconds after the recovery; it grows linearly and is whole after `window`."""
    if since >= window or window <= 0:
        return weight
    return weight * max(_LEAST_SHARE, since / window)
