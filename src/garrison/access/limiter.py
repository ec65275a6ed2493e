"""Counts what the holders of keys do, against the limits of their keys; and what routes carry, against theirs.

    found = limiter.begin(key_id, limits, now, tokens=prompt_tokens)
    if isinstance(found, Excess): raise found.error()
    try: ...
    finally: limiter.end(found, now, tokens=tokens_in_all)

One limiter serves one event loop; nothing in it waits. Counts are those of this process and start anew with it.
"""

import math
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from enum import StrEnum

from garrison.access.buckets import Bucket, Standing, full, refilled, standing, taken, wait_for
from garrison.access.permissions import Limits
from garrison.base.errors import RateLimitedError

__all__ = ["Admission", "Excess", "LimitKind", "Limiter"]

_CONCURRENT_RETRY_SECONDS = 1.0
"""When a request in progress will end is not known."""


class LimitKind(StrEnum):
    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    CONCURRENT = "concurrent"


@dataclass(frozen=True, slots=True)
class Excess:
    """A request that is refused.

    Attributes:
        kind: the limit.
        limit: its value.
        seconds: until a request may pass, if no other comes before it.
    """

    kind: LimitKind
    limit: int
    seconds: float

    @property
    def retry_after(self) -> int:
        """The value of the header `Retry-After`: whole seconds, at least 1."""
        return max(1, math.ceil(self.seconds))

    def error(self, who: str = "this key") -> RateLimitedError:
        """Return the error with which the request ends. `who`: whose limit it is."""
        words = {LimitKind.CONCURRENT: "requests at once"}
        what = words.get(self.kind, str(self.kind).replace("_", " "))
        return RateLimitedError(
            f"{who} may do no more than {self.limit} {what}",
            hint=f"Send the request again after {self.retry_after} s.",
            details={"limit": str(self.kind), "retry_after": self.retry_after},
        )


@dataclass(slots=True)
class Admission:
    """A request in progress.

    Attributes:
        by: who counts it.
        holder: of the limits.
        tokens: have been counted for it so far.
    """

    by: "Limiter"
    holder: Hashable
    limits: Limits
    tokens: int
    ended: bool = False


@dataclass(slots=True)
class _Use:
    """What one holder does. A bucket is None until its limit first counts something."""

    requests: Bucket | None = None
    tokens: Bucket | None = None
    running: int = 0


@dataclass(slots=True)
class Limiter:
    """The use of all holders, such as keys by their ids. Entries of those that are gone are dropped by `keep`."""

    _uses: dict[Hashable, _Use] = field(default_factory=dict)

    def begin(self, holder: Hashable, limits: Limits, now: float, *, tokens: int = 0) -> Admission | Excess:
        """Count a request that begins, unless it exceeds a limit; a request that is refused counts nothing.

        Args:
            now: monotonic seconds.
            tokens: what the request will use as far as it is known, such as the length of its prompt.
        """
        use = self._uses.setdefault(holder, _Use())
        use.requests = _at(use.requests, limits.requests_per_minute, now)
        use.tokens = _at(use.tokens, limits.tokens_per_minute, now)
        if limits.concurrent is not None and use.running >= limits.concurrent:
            return Excess(LimitKind.CONCURRENT, limits.concurrent, _CONCURRENT_RETRY_SECONDS)
        if use.requests is not None and (seconds := wait_for(use.requests, 1)) > 0:
            return Excess(LimitKind.REQUESTS, use.requests.per_minute, seconds)
        # At least one token must be left: a request whose size is not known beforehand may not pass on debts.
        if use.tokens is not None and (seconds := wait_for(use.tokens, max(1, tokens))) > 0:
            return Excess(LimitKind.TOKENS, use.tokens.per_minute, seconds)
        if use.requests is not None:
            use.requests = taken(use.requests, 1)
        if use.tokens is not None:
            use.tokens = taken(use.tokens, tokens)
        use.running += 1
        return Admission(self, holder, limits, tokens)

    def undo(self, admission: Admission, now: float) -> None:
        """Count nothing for a request that another limit refuses."""
        self.end(admission, now, tokens=0)
        use = self._uses.get(admission.holder)
        if use is not None and use.requests is not None:
            use.requests = taken(refilled(use.requests, use.requests.per_minute, now), -1)

    def spend(self, admission: Admission, now: float, tokens: int) -> None:
        """Correct what a request in progress has used: `tokens` in all so far."""
        use = self._uses.get(admission.holder)
        if use is not None and use.tokens is not None and not admission.ended:
            use.tokens = taken(refilled(use.tokens, use.tokens.per_minute, now), tokens - admission.tokens)
            admission.tokens = tokens

    def end(self, admission: Admission, now: float, tokens: int | None = None) -> None:
        """Count the end of a request. A second call has no effect.

        Args:
            tokens: what it used in all; None if that is not known, then what was counted so far stays.
        """
        if admission.ended:
            return
        if tokens is not None:
            self.spend(admission, now, tokens)
        admission.ended = True
        if (use := self._uses.get(admission.holder)) is not None:
            use.running -= 1

    def standings(self, holder: Hashable, limits: Limits, now: float) -> dict[LimitKind, Standing]:
        """Return what is left of each limit that is set, for headers of answers."""
        use = self._uses.get(holder, _Use())
        found: dict[LimitKind, Standing] = {}
        for kind, bucket, limit in (
            (LimitKind.REQUESTS, use.requests, limits.requests_per_minute),
            (LimitKind.TOKENS, use.tokens, limits.tokens_per_minute),
        ):
            if (known := _at(bucket, limit, now)) is not None:
                found[kind] = standing(known)
        if limits.concurrent is not None:
            found[LimitKind.CONCURRENT] = Standing(limits.concurrent, max(0, limits.concurrent - use.running), 0.0)
        return found

    def keep(self, holders: Collection[Hashable]) -> None:
        """Forget those that are not among these and have no request in progress."""
        self._uses = {one: use for one, use in self._uses.items() if one in holders or use.running > 0}


def _at(bucket: Bucket | None, limit: int | None, now: float) -> Bucket | None:
    if limit is None:
        return None
    return full(limit, now) if bucket is None else refilled(bucket, limit, now)
