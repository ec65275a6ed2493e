"""A decision about room in words and figures, for `garrison instance explain` and the API. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from garrison.instances.room.choose import gib
from garrison.instances.room.ledger import free_bytes
from garrison.instances.room.values import Decision, Device, Evict, Limits, Need, Never, Place, Resident, Wait

__all__ = ["Explanation", "Verdict"]

Verdict = Literal["fits", "evicts", "waits", "never"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a start would do now, and everything that decided about it.

    Attributes:
        residents: every instance that holds memory; the one itself too, if it does.
    """

    decision: Decision
    need: Need
    residents: tuple[Resident, ...] = ()
    devices: tuple[Device, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def verdict(self) -> Verdict:
        match self.decision:
            case Place():
                return "fits"
            case Evict():
                return "evicts"
            case Wait():
                return "waits"
            case Never():
                return "never"

    @property
    def text(self) -> str:
        """The answer, in one sentence."""
        found, others = self.decision, {one.name: one for one in self.residents}
        match found:
            case Place(devices=keys):
                return f"fits on {self._titles(keys)}: {found.why}"
            case Evict(victims=victims):
                because = ", ".join(f"{name} ({_why(others[name])})" for name in victims if name in others)
                return f"evicts {because} to run on {self._titles(found.devices)}"
            case Wait():
                return f"waits: {found.why}"
            case Never():
                return f"can never fit: {found.why}"

    def to_json(self) -> dict[str, Any]:
        """Return the answer with its figures; all sizes are bytes, all times seconds."""
        found = self.decision
        residents = {one.name: one for one in self.residents}
        names = found.victims if isinstance(found, Evict) else ()
        return {
            "instance": self.need.name,
            "verdict": self.verdict,
            "text": self.text,
            "why": found.why,
            "devices": list(found.devices) if isinstance(found, Place | Evict) else [],
            "evicts": list(names),
            "victims": [_victim(residents[name], self.limits) for name in names if name in residents],
            "retry_seconds": found.seconds if isinstance(found, Wait) else None,
            "need": _need(self.need),
            "memory": [self._memory(one) for one in self.devices],
            "running": {"instances": len(self._others()), "limit": self.limits.most},
        }

    def _others(self) -> list[Resident]:
        return [one for one in self.residents if one.name != self.need.name]

    def _memory(self, device: Device) -> dict[str, Any]:
        others = self._others()
        return {
            "device": device.key,
            "index": device.index,
            "total": device.total,
            "reported_free": device.free,
            "other_programs": device.foreign,
            "held": {one.name: one.held[device.key] for one in others if one.held.get(device.key)},
            "free": free_bytes(device, others),
            "need": self.need.on(device),
        }

    def _titles(self, keys: Sequence[str]) -> str:
        known = {one.key: one.title for one in self.devices}
        return " and ".join(known.get(key, "system memory" if key == "host" else key) for key in keys)


def _need(need: Need) -> dict[str, Any]:
    return {
        "bytes": need.bytes,
        "share": need.share,
        "gpus": need.count,
        "system_memory": need.host,
        "source": need.source,
        "parts": [{"what": part.what, "bytes": part.bytes} for part in need.parts],
        "may_use": list(need.devices),
        "missing": list(need.missing),
        "group": need.group,
        "waited": round(need.waited, 3),
    }


def _victim(one: Resident, limits: Limits) -> dict[str, Any]:
    return {
        "instance": one.name,
        "why": _why(one),
        "idle_seconds": round(one.idle, 1),
        "cost_of_return": round(one.cost, 1),
        "priority": one.priority,
        "drained": one.busy,
        "resident_seconds": round(one.resident, 1),
        "least_resident_seconds": limits.residency,
        "held": dict(one.held),
    }


def _why(one: Resident) -> str:
    held = sum(one.held.values())
    state = "busy, waited for long enough, finishes what it has" if one.busy else f"idle for {one.idle:.0f} s"
    gives = f", gives back {gib(held)}" if held else ""
    return f"{state}, its return costs {one.cost:.0f} s{gives}"
