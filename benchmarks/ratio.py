"""What the benchmarks share: pyperf measures, this prints the ratio of the medians and the bound that is aimed at."""

from typing import Any

__all__ = ["show"]


def show(name: str, measured: Any, base: Any, bound: str) -> None:
    """Both are pyperf benchmarks; None in pyperf's worker processes, which print nothing."""
    if measured is None or base is None:
        return
    a, b = measured.median(), base.median()
    print(f"{name}: {a * 1000:.1f} ms against {b * 1000:.1f} ms, ratio {a / b:.2f} (aim: {bound})", flush=True)
