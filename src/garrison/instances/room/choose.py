"""Where an instance can run, and who makes room for it."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from garrison.instances.room.ledger import free_bytes
from garrison.instances.room.values import HOST, Decision, Device, Evict, Limits, Need, Never, Place, Resident, Wait

__all__ = ["choose", "evictable", "gib"]

_MOST_COMBINATIONS = 64
"""Sets of GPUs that are compared. With more, those with the most room come first."""


def choose(need: Need, residents: Sequence[Resident], devices: Sequence[Device], limits: Limits) -> Decision:
    """Decide where `need` runs. Pure.

    Args:
        residents: every other instance that holds an engine.
    """
    others = [one for one in residents if one.name != need.name]
    if (hopeless := _hopeless(need, others, devices, limits)) is not None:
        return hopeless
    options = [_at(keys, need, others, devices, limits) for keys in _device_sets(need, others, devices)]
    return min(options, key=lambda found: _rank(found, others))


def evictable(residents: Iterable[Resident], limits: Limits) -> list[Resident]:
    """Those that may be stopped at once, however long they have been ready."""
    return [one for one in residents if limits.evict and not (one.pinned or one.busy or one.moving)]


def _hopeless(need: Need, others: Sequence[Resident], devices: Sequence[Device], limits: Limits) -> Never | None:
    if limits.most is not None and limits.most < 1:
        return Never("no instance may run: the limit of running instances is 0")
    if need.group is not None and limits.groups.get(need.group, 1) < 1:
        return Never(f"no instance of group {need.group} may run: its limit is 0")
    host = next((one for one in devices if one.key == HOST), None)
    if need.count == 0:
        if host is not None and need.bytes is not None and need.bytes > host.total:
            return Never(f"it takes {gib(need.bytes)} of system memory; there are {gib(host.total)} for instances")
        return None
    if need.missing:
        there = ", ".join(f"{one.title} with {gib(one.total)}" for one in devices if one.key != HOST)
        return Never(f"it may use {', '.join(need.missing)}, which is not there; there is {there or 'no GPU'}")
    usable = _usable(need, devices)
    if len(usable) < need.count:
        named = f" of {', '.join(need.devices)}" if need.devices else ""
        return Never(f"it uses {need.count} GPUs{named} at once; {len(usable)} are there")
    large = [one for one in usable if (need.on(one) or 0) <= one.total]
    if len(large) < need.count:
        most = max(usable, key=lambda one: one.total)
        return Never(f"it takes {gib(need.on(most) or 0)} on each GPU; the largest has {gib(most.total)}")
    if host is not None and need.host > host.total:
        return Never(
            f"it takes {gib(need.host)} of system memory beside its GPUs; there are {gib(host.total)} for instances"
        )
    return None


def _usable(need: Need, devices: Sequence[Device]) -> list[Device]:
    return [one for one in devices if one.key != HOST and (not need.devices or one.key in need.devices)]


def _device_sets(need: Need, others: Sequence[Resident], devices: Sequence[Device]) -> list[tuple[str, ...]]:
    if need.count == 0:
        return [(HOST,)]
    usable = [one for one in _usable(need, devices) if (need.on(one) or 0) <= one.total]
    usable.sort(key=lambda one: (-free_bytes(one, others), one.key))
    sets = itertools.combinations((one.key for one in usable), need.count)
    return list(itertools.islice(sets, _MOST_COMBINATIONS))


def _at(
    keys: tuple[str, ...], need: Need, others: Sequence[Resident], devices: Sequence[Device], limits: Limits
) -> Decision:
    """The decision for one set of devices."""
    places = [one for one in devices if one.key in keys or (one.key == HOST and need.host)]
    if _fits(need, places, others, limits):
        return Place(keys, _free_text(need, places, others))
    if not limits.evict:
        return Wait(f"{_free_text(need, places, others)}; no instance is stopped for another (enable_lru_eviction)")
    idle = evictable(others, limits)
    ready = [one for one in idle if one.resident >= limits.residency]
    if (victims := _victims(need, places, others, ready, limits)) is not None:
        return _evict(victims, keys)
    starved = need.waited >= limits.patience
    can_go = [one for one in others if not one.pinned and not one.moving]
    settled = [one for one in can_go if one.resident >= limits.residency]
    if starved and (victims := _victims(need, places, others, settled, limits)) is not None:
        return _evict(victims, keys)
    victims = _victims(need, places, others, can_go if starved else idle, limits)
    if victims is not None:
        seconds = max(limits.residency - one.resident for one in victims)
        return Wait(f"{_names(victims)} became ready only just now", max(0.0, seconds))
    busy = [one for one in others if not one.pinned and one.busy]
    if _victims(need, places, others, [one for one in others if not one.pinned], limits) is not None:
        return Wait(f"{_names(busy)} is busy", None if starved else limits.patience - need.waited)
    return _blocked(need, places, others)


def _evict(victims: Sequence[Resident], keys: tuple[str, ...]) -> Evict:
    names, drain = tuple(one.name for one in victims), tuple(one.name for one in victims if one.busy)
    return Evict(names, keys, _evict_text(victims), drain, sum(one.cost / max(one.idle, 1.0) for one in victims))


def _blocked(need: Need, places: Sequence[Device], others: Sequence[Resident]) -> Decision:
    pinned = [one for one in others if one.pinned]
    known = any(need.on(one) for one in places)
    if known and pinned:
        return Wait(f"{_names(pinned)} is pinned; {_free_text(need, places, others)}")
    if known and not others:
        used = " and ".join(f"{gib(one.total - one.free)} of {gib(one.total)} on {one.title}" for one in places)
        return Wait(f"other programs use {used}; {_takes(need, places)}")
    return Wait(f"{_names(pinned)} is pinned" if pinned else _free_text(need, places, others))


def _fits(need: Need, places: Sequence[Device], others: Sequence[Resident], limits: Limits) -> bool:
    awake = [one for one in others if not one.asleep]
    if limits.most is not None and len(awake) >= limits.most:
        return False
    in_group = sum(one.group == need.group for one in awake)
    if need.group is not None and in_group >= limits.groups.get(need.group, in_group + 1):
        return False
    return all(free_bytes(one, others) >= (need.on(one) or 0) for one in places)


def _victims(
    need: Need, places: Sequence[Device], others: Sequence[Resident], evictable: Sequence[Resident], limits: Limits
) -> list[Resident] | None:
    """A small set of `evictable` without which `need` fits; None if there is none."""
    gone: list[Resident] = []
    for one in sorted(evictable, key=lambda one: _order(one, need)):
        gone.append(one)
        if _fits_without(gone, need, places, others, limits):
            break
    else:
        return None
    for one in list(gone):  # the first ones may not be needed after all
        rest = [other for other in gone if other is not one]
        if _fits_without(rest, need, places, others, limits):
            gone = rest
    return gone


def _fits_without(
    gone: Sequence[Resident], need: Need, places: Sequence[Device], others: Sequence[Resident], limits: Limits
) -> bool:
    left = [one for one in others if one not in gone]
    after = [
        replace(one, free=min(one.total, one.free + sum(each.held.get(one.key, 0) for each in gone))) for one in places
    ]
    return _fits(need, after, left, limits)


def _order(one: Resident, need: Need) -> tuple[bool, int, bool, float, str]:
    """Busy ones last, then by priority, those of the same group first, then idle time over the cost of a return."""
    other_group = need.group is not None and one.group != need.group
    return (one.busy, one.priority, other_group, -one.idle / max(one.cost, 0.1), one.name)


def _rank(found: Decision, others: Sequence[Resident]) -> tuple[int, int, int, float]:
    """The best decision is the smallest."""
    match found:
        case Place():
            return (0, 0, 0, 0.0)
        case Evict(victims=victims, drain=drain, loss=loss):
            return (1, len(drain), max(one.priority for one in others if one.name in victims), loss)
        case Wait(seconds=seconds):
            return (2, 0, 0, seconds if seconds is not None else float("inf"))
        case _:
            return (3, 0, 0, 0.0)


def _free_text(need: Need, places: Sequence[Device], others: Sequence[Resident]) -> str:
    free = ", ".join(f"{gib(free_bytes(one, others))} free on {one.title}" for one in places)
    return f"{free or 'memory is not measured'}; {_takes(need, places)}"


def _takes(need: Need, places: Sequence[Device]) -> str:
    takes = dict.fromkeys(gib(found) for one in places if (found := need.on(one)) is not None)
    return f"it takes {' and '.join(takes)}" if takes else "what it takes is not known yet"


def _evict_text(victims: Sequence[Resident]) -> str:
    idle = ", ".join(f"{one.name} (idle {one.idle:.0f} s, back in {one.cost:.0f} s)" for one in victims)
    return f"makes room: {idle}"


def _names(found: Sequence[Resident]) -> str:
    return ", ".join(one.name for one in found)


def gib(count: int) -> str:
    """Bytes for people, in GiB."""
    return f"{count / 2**30:.1f} GiB"
