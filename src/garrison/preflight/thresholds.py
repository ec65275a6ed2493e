"""The limits a GPU must keep."""

from dataclasses import dataclass

__all__ = ["Thresholds"]


@dataclass(frozen=True)
class Thresholds:
    """Limits of the check. `fail_on` names the conditions that are fatal; the others only warn."""

    min_free_gb: float = 4.0
    max_temp_c: int = 85
    max_util_pct: int = 95
    fail_on: tuple[str, ...] = ("temperature",)
