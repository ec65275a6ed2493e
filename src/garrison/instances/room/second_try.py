"""After a start that failed for want of memory: one more, with everything gone that may go. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from garrison.instances.room.choose import choose, evictable, gib
from garrison.instances.room.explain import Explanation
from garrison.instances.room.ledger import free_bytes
from garrison.instances.room.values import HOST, Decision, Device, Evict, Limits, Need, Place, Resident

__all__ = ["figures", "make_all_room", "ran_out_of_memory", "with_all_that_is_free", "worth_a_second_try"]

_CAUSES = ("gpu-memory", "host-memory")
_TOO_SMALL = "kv-cache-too-small"


def ran_out_of_memory(details: Mapping[str, Any], need: Need | None) -> bool:
    """Whether a start failed for want of memory, by the details of its error.

    A KV cache that is too small counts where its size was estimated here, and not where the user set it.
    """
    diagnosis = details.get("diagnosis")
    cause = diagnosis.get("cause") if isinstance(diagnosis, Mapping) else None
    return cause in _CAUSES or (cause == _TOO_SMALL and need is not None and need.source == "estimated")


def worth_a_second_try(need: Need, residents: Sequence[Resident], devices: Sequence[Device], limits: Limits) -> bool:
    """Whether a second try would find more room than the first: somebody can go, or the estimate can grow."""
    return bool(_in_the_way(need, residents, devices, limits)) or (need.percent and need.count > 0)


def make_all_room(need: Need, residents: Sequence[Resident], devices: Sequence[Device], limits: Limits) -> Decision:
    """As `choose`, but everything that may be stopped and holds memory where `need` could run goes first."""
    going = _in_the_way(need, residents, devices, limits)
    names = {one.name for one in going}
    left = [one for one in residents if one.name not in names]
    freed = [
        replace(one, free=min(one.total, one.free + sum(each.held.get(one.key, 0) for each in going)))
        for one in devices
    ]
    found = choose(need, left, freed, limits)
    if not going or not isinstance(found, Place):
        return found
    why = f"its start ran out of memory, so everything idle goes: {', '.join(sorted(names))}"
    return Evict(tuple(one.name for one in going), found.devices, why)


def with_all_that_is_free(
    need: Need, keys: Sequence[str], residents: Sequence[Resident], devices: Sequence[Device]
) -> Need:
    """Let an estimate grow to whole hundredths of what is free on the chosen GPUs: it may have been too small."""
    others = [one for one in residents if one.name != need.name]
    places = [one for one in devices if one.key in keys and one.key != HOST and one.total]
    if not need.percent or not places or need.bytes is None:
        return need
    room = min(free_bytes(one, others) * 100 // one.total * one.total // 100 for one in places)
    return replace(need, bytes=max(need.bytes, room))


def figures(found: Explanation, held: Mapping[str, int]) -> str:
    """What an instance was given, and what is free now, to complete the message of a failed start."""
    others = [one for one in found.residents if one.name != found.need.name]
    known = {one.key: one for one in found.devices}
    parts = [
        f"{gib(count)} of {known[key].title} were given to it, of {gib(known[key].total)} in all and "
        f"{gib(free_bytes(known[key], others))} free"
        for key, count in held.items()
        if key in known
    ]
    return "; ".join(parts) or "what it takes is not known"


def _in_the_way(need: Need, residents: Sequence[Resident], devices: Sequence[Device], limits: Limits) -> list[Resident]:
    places = {HOST} if need.count == 0 or need.host else set()
    if need.count:
        places |= {one.key for one in devices if one.key != HOST and (not need.devices or one.key in need.devices)}
    others = [one for one in residents if one.name != need.name]
    return [one for one in evictable(others, limits) if any(one.held.get(key) for key in places)]
