"""Token buckets: how a rate is limited. Pure; times are monotonic seconds that the caller passes in."""

from dataclasses import dataclass

__all__ = ["Bucket", "Standing", "full", "refilled", "standing", "taken", "wait_for"]

_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """A rate per minute. The bucket holds a minute's amount, so that short bursts pass and the rate holds over time.

    Attributes:
        per_minute: its size, and what flows in each minute.
        level: what it held at `at`; below zero where more was used than was known beforehand.
        at: monotonic seconds.
    """

    per_minute: int
    level: float
    at: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How much is left of a limit, for headers of answers. `reset` is in seconds from now until all of it is back."""

    limit: int
    remaining: int
    reset: float


def full(per_minute: int, now: float) -> Bucket:
    return Bucket(per_minute, float(per_minute), now)


def refilled(bucket: Bucket, per_minute: int, now: float) -> Bucket:
    """Return the bucket at `now`, for a limit that may have changed meanwhile."""
    flown = max(0.0, now - bucket.at) * per_minute / _SECONDS
    # A raised limit takes effect at once; what was used so far stays used.
    level = bucket.level + (per_minute - bucket.per_minute) + flown
    return Bucket(per_minute, min(float(per_minute), level), max(now, bucket.at))


def wait_for(bucket: Bucket, amount: float) -> float:
    """Return the seconds until `amount` can be taken; 0 if it can be now.

    More than the bucket holds can be taken from a full one: otherwise it could never be.
    """
    missing = min(amount, bucket.per_minute) - bucket.level
    return max(0.0, missing * _SECONDS / bucket.per_minute)


def taken(bucket: Bucket, amount: float) -> Bucket:
    """Return the bucket without `amount`; a negative amount gives back."""
    return Bucket(bucket.per_minute, min(float(bucket.per_minute), bucket.level - amount), bucket.at)


def standing(bucket: Bucket) -> Standing:
    missing = bucket.per_minute - bucket.level
    return Standing(bucket.per_minute, max(0, int(bucket.level)), max(0.0, missing * _SECONDS / bucket.per_minute))
