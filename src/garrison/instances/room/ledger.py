"""What is free: the reports of drivers, corrected by what the instances of this server are known to hold."""

from collections.abc import Iterable, Mapping, Sequence

from garrison.instances.room.values import HOST, Device, Resident

__all__ = ["foreign_bytes", "free_bytes", "not_back"]

_BACK_SHARE = 0.75
"""Of what an instance was taken to hold. An estimate is rarely exact, and a driver keeps a little."""


def free_bytes(device: Device, residents: Iterable[Resident]) -> int:
    """The bytes that can be given away: the driver may not know yet what was started just now, nor what has ended."""
    return max(0, min(device.free, device.total - device.foreign - _held(device, residents)))


def foreign_bytes(device: Device, residents: Sequence[Resident]) -> int | None:
    """The bytes that other programs hold; None while that cannot be told, because an instance there is taking or giving
    back memory."""
    if any(one.moving and device.key in one.held for one in residents):
        return None
    return max(0, device.total - device.free - _held(device, residents))


def not_back(held: Mapping[str, int], before: Sequence[Device], now: Sequence[Device]) -> dict[str, int]:
    """Bytes by GPU that an instance gave back and the driver does not report as free yet; empty when they are back.

    Three quarters of what it held count as all of it. System memory is free as soon as a process is gone.

    Args:
        held: what the instance was taken to hold.
        before: what was reported before its stop.
    """
    earlier, current = {one.key: one.free for one in before}, {one.key: one.free for one in now}
    missing: dict[str, int] = {}
    for key, count in held.items():
        if key == HOST or key not in earlier or key not in current:
            continue
        back = current[key] - earlier[key]
        if back < _BACK_SHARE * count:
            missing[key] = count - max(0, back)
    return missing


def _held(device: Device, residents: Iterable[Resident]) -> int:
    return sum(one.held.get(device.key, 0) for one in residents)
