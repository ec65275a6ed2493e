"""Whether an instance that gives up its memory sleeps or stops, and whether a sleep and a wake have worked. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from garrison.instances.values.sleep import SleepCost

__all__ = ["Rest", "Situation", "changed_answer", "choose_rest", "deadline", "memory_kept", "memory_missing"]

_DEFAULT_START_SECONDS = 30.0
"""What a start is taken to cost where none was measured."""
_KEPT_SHARE = 0.5
"""A sleep that frees less has not worked. What may stay are the CUDA context, graphs and communicators."""
_BACK_SHARE = 0.75
_LEAST_SECONDS = 30.0
_PATIENCE = 4.0


@dataclass(frozen=True, slots=True)
class Rest:
    """How an instance gives up its memory: asleep at `level`, or stopped where that is None."""

    level: int | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the choice depends on.

    Attributes:
        levels: that the engine has, and where the weights are meanwhile: `host` or `dropped`.
        declared: the only level that may be used; 0 for none, None for any.
        costs: of the levels, as measured.
        start_seconds: of a start, as measured.
        quarantined: levels that failed with this model and version.
        waited_for: somebody waits for the memory, so that falling asleep counts, not only waking up.
        host_bytes: system memory that weights on the host take, at most.
        host_free: system memory that is free; None where that is not known.
    """

    levels: Mapping[int, str] = field(default_factory=dict)
    declared: int | None = None
    costs: Mapping[int, SleepCost] = field(default_factory=dict)
    start_seconds: float | None = None
    quarantined: frozenset[int] = frozenset()
    waited_for: bool = False
    host_bytes: int = 0
    host_free: int | None = None


def choose_rest(found: Situation) -> Rest:
    """Choose what costs least: a stop and a start, or one of the levels.

    A level whose costs are not known yet is tried where no known one beats the start: the lightest first, or the
    deepest first when somebody waits, because that one is asleep soonest.
    """
    if not found.levels:
        return Rest(None, "the engine cannot sleep")
    if found.declared == 0:
        return Rest(None, "sleep is switched off for it")
    usable = [level for level in found.levels if found.declared in (None, level)]
    if not usable:
        return Rest(None, f"the engine has no sleep level {found.declared}")
    healthy = [level for level in usable if level not in found.quarantined]
    if not healthy:
        return Rest(None, "its sleep has failed before")
    fitting = [level for level in healthy if _fits_host(level, found)]
    if not fitting:
        return Rest(None, "system memory has no room for its weights")
    stop = found.start_seconds if found.start_seconds is not None else _DEFAULT_START_SECONDS
    known = {level: seconds for level in fitting if (seconds := _seconds(level, found)) is not None}
    best = min(known, key=lambda level: (known[level], level), default=None)
    if best is not None and known[best] < stop:
        return Rest(best, f"sleep level {best} costs {known[best]:.1f} s, a start {stop:.1f} s")
    untried = sorted((level for level in fitting if level not in known), reverse=found.waited_for)
    if untried:
        return Rest(untried[0], f"what sleep level {untried[0]} costs is not known yet")
    return Rest(None, f"a start costs {stop:.1f} s, and no sleep costs less")


def _fits_host(level: int, found: Situation) -> bool:
    if found.levels[level] != "host" or found.host_free is None:
        return True
    cost = found.costs.get(level)
    measured = cost.host_bytes if cost is not None else None
    return found.host_free >= (found.host_bytes if measured is None else measured)


def _seconds(level: int, found: Situation) -> float | None:
    cost = found.costs.get(level)
    if cost is None or cost.wake is None:
        return None
    return cost.wake + (cost.sleep if found.waited_for else 0.0)


def deadline(measured: float | None, most: float) -> float:
    """Seconds to wait for a sleep or a wake: four times what it took the last time, between 30 s and `most`."""
    return most if measured is None else min(most, max(_LEAST_SECONDS, _PATIENCE * measured))


def memory_kept(before: Mapping[str, int], after: Mapping[str, int]) -> str | None:
    """Why a sleep has not freed enough, from the bytes held by device; None if it has, or if nothing is known."""
    for device, held in sorted(before.items()):
        left = after.get(device, 0)
        if left > _KEPT_SHARE * held:
            return f"{_gib(left)} of {_gib(held)} on {device} are still held"
    return None


def memory_missing(before: Mapping[str, int], after: Mapping[str, int]) -> str | None:
    """Why the memory is not back after a wake; None if it is, or nothing is known."""
    if not after:
        return None
    for device, held in sorted(before.items()):
        back = after.get(device, 0)
        if back < _BACK_SHARE * held:
            return f"only {_gib(back)} of {_gib(held)} on {device} are back"
    return None


def changed_answer(before: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """Which model does not answer a fixed prompt as it did before; None if all do."""
    for model, answer in sorted(before.items()):
        name = model.partition("@")[0]
        if model not in after:
            return f"{name} is not served any more"
        if after[model] != answer:
            return f"{name} answers {after[model]!r} instead of {answer!r}"
    return None


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
