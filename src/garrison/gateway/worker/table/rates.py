"""Limits of rates, of keys and of routes: what a request counts for, and what answers say about it."""

from collections.abc import Iterable, Mapping

from garrison.access.buckets import Standing
from garrison.access.limiter import LimitKind
from garrison.access.permissions import Limits
from garrison.gateway.link.messages import RouteValue

__all__ = ["RATE_PREFIX", "rate_headers", "rates_of"]

RATE_PREFIX = b"x-ratelimit-"
_NAMES: Mapping[LimitKind, bytes] = {
    LimitKind.REQUESTS: b"requests",
    LimitKind.TOKENS: b"tokens",
    LimitKind.CONCURRENT: b"concurrent",
}


def rates_of(value: RouteValue) -> Limits | None:
    """Return the rates of a route; None for one without. Requests over its other limit wait."""
    told = value.limits
    if told is None or (told.requests_per_minute is None and told.tokens_per_minute is None):
        return None
    return Limits(requests_per_minute=told.requests_per_minute, tokens_per_minute=told.tokens_per_minute)


def rate_headers(standings: Iterable[Mapping[LimitKind, Standing]]) -> list[tuple[bytes, bytes]]:
    """Return headers as OpenAI's API has them. Of several limits of a kind, that of which less is left counts.

    Args:
        standings: of the limits of a key, and of a route.
    """
    found: dict[LimitKind, Standing] = {}
    for each in standings:
        for kind, standing in each.items():
            if kind not in found or standing.remaining < found[kind].remaining:
                found[kind] = standing
    headers: list[tuple[bytes, bytes]] = []
    for kind, standing in found.items():
        name = _NAMES[kind]
        headers.append((RATE_PREFIX + b"limit-" + name, b"%d" % standing.limit))
        headers.append((RATE_PREFIX + b"remaining-" + name, b"%d" % standing.remaining))
        if kind is not LimitKind.CONCURRENT:  # when a request in progress ends is not known
            headers.append((RATE_PREFIX + b"reset-" + name, _duration(standing.reset)))
    return headers


def _duration(seconds: float) -> bytes:
    """`1m15s`, `8.64s`."""
    minutes, rest = divmod(round(seconds, 2), 60)
    text = f"{rest:.2f}".rstrip("0").rstrip(".")
    return (f"{minutes:.0f}m{text}s" if minutes else f"{text}s").encode()
