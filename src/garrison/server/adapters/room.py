"""Which target is to load an adapter, and which other adapter makes room for it. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["ON_DEMAND_SLOTS", "Loaded", "Need", "Offer", "Room", "best_offer", "room_for"]

ON_DEMAND_SLOTS = 8
"""Adapters on demand at a target that does not say how many it is to hold. vLLM itself holds any number: it reads those
that its cache has no room for from disk, whenever they are used."""


class Need(IntEnum):
    """What has to happen before an adapter can be loaded, the best first."""

    NOTHING = 0
    EVICTION = 1
    PATIENCE = 2
    """The others are in use, or one leaves already."""
    NEVER = 3
    """The others are not on demand, and fill all slots."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An adapter that a target holds.

    Attributes:
        name: what the target calls it.
        on_demand: the name that clients use, if it may make room; None if it may not.
        used_at: the time of its last request.
        idle: no request uses it, or waits for it.
        leaving: it is being unloaded, and gets no further request. Its slot is taken until its last one has ended.
        loaded_at: the time when it was last loaded for a request.
        settled: that is long enough ago for it to make room although it is in use.
    """

    name: str
    on_demand: str | None = None
    used_at: float = 0.0
    idle: bool = True
    leaving: bool = False
    loaded_at: float = 0.0
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Room:
    """Whether there is room for one more adapter. `victim`: which one makes room, by the name that clients use."""

    need: Need
    victim: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """A target that could load an adapter.

    Attributes:
        target: its name in the manifest.
        refusal: why it cannot; empty if it can.
        runs: it can answer now.
        requests: in progress there.
    """

    target: str
    refusal: str = ""
    runs: bool = True
    need: Need = Need.NOTHING
    requests: int = 0


def room_for(loaded: Collection[Loaded], slots: int | None, *, reserved: int = 0, patient: bool = True) -> Room:
    """Decide how one more adapter on demand finds room at a target.

    One that leaves already is waited for: no other has to make the room that it leaves. Where all are in use without an
    end, the one that was loaded first has to make room once requests have waited long enough for another one.

    Args:
        slots: how many adapters the target is to hold; None: any number, and `ON_DEMAND_SLOTS` on demand.
        reserved: adapters that are being loaded.
        patient: those that are in use are waited for.
    """
    staying = [one for one in loaded if not one.leaving]
    evictable = [one for one in staying if one.on_demand is not None]
    limit = sum(one.on_demand is None for one in loaded) + ON_DEMAND_SLOTS if slots is None else slots
    if len(loaded) + reserved < limit:
        return Room(Need.NOTHING)
    if len(staying) + reserved < limit:
        return Room(Need.PATIENCE)
    if not evictable and not reserved:
        return Room(Need.NEVER)
    idle = [one for one in evictable if one.idle]
    if idle:
        oldest = min(idle, key=lambda one: (one.used_at, one.name))
        return Room(Need.EVICTION, oldest.on_demand)
    settled = [] if patient else [one for one in evictable if one.settled]
    if not settled:
        return Room(Need.PATIENCE)
    return Room(Need.EVICTION, min(settled, key=lambda one: (one.loaded_at, one.name)).on_demand)


def best_offer(offers: Sequence[Offer]) -> Offer | None:
    """Return the target that is to load an adapter; None if none can.

    One that runs comes before one that has to be started, one with room before one that has to make it, then the one
    with fewer requests, then the one declared first.
    """
    able = [(at, one) for at, one in enumerate(offers) if not one.refusal]
    if not able:
        return None
    return min(able, key=lambda entry: (not entry[1].runs, entry[1].need, entry[1].requests, entry[0]))[1]
