"""A decision about room, as JSON."""

from typing import Any

from garrison.instances.room.values import Decision, Evict, Place, Wait

__all__ = ["explained"]


def explained(found: Decision) -> dict[str, Any]:
    """Return the verdict, `fits`, `evicts`, `waits` or `never`, with devices, victims and the reason in words."""
    match found:
        case Place(devices=devices, why=why):
            return {"verdict": "fits", "devices": list(devices), "evicts": [], "text": why}
        case Evict(victims=victims, devices=devices, why=why, drain=drain):
            return {
                "verdict": "evicts", "devices": list(devices), "evicts": list(victims), "drains": list(drain),
                "text": why,
            }  # fmt: skip
        case Wait(why=why, seconds=seconds):
            return {"verdict": "waits", "devices": [], "evicts": [], "text": why, "seconds": seconds}
        case _:
            return {"verdict": "never", "devices": [], "evicts": [], "text": found.why}
