"""Medians, spreads and ratios of the gateway's benchmark, and its tables of at most 80 columns."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from load import Values

__all__ = ["BASE", "NOISE", "Case", "Figure", "Round", "figure", "paired", "tables"]

BASE = "nginx"
DIRECT = "direct"
NOISE = 0.05  # of the gateway's core; with more for others the figures are called provisional

Round = dict[str, dict[str, Values]]  # of gateway and case


@dataclass(frozen=True, slots=True)
class Case:
    key: str
    title: str
    kind: str  # requests, paced or flood
    size: int = 0  # bytes of a body
    connections: int = 0
    rate: int = 0  # chunks a second a stream


@dataclass(frozen=True, slots=True)
class Figure:
    """A median over the rounds, and the least and the most."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Half the distance between least and most, in parts of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def figure(rounds: Sequence[Round], gateway: str, case: str, value: str) -> Figure | None:
    found = [one[gateway][case][value] for one in rounds if value in one.get(gateway, {}).get(case, {})]
    return Figure(statistics.median(found), min(found), max(found)) if found else None


def paired(rounds: Sequence[Round], gateway: str, base: str, case: str, value: str) -> list[tuple[float, float]]:
    """The value of both in each round that has both."""
    return [
        (one[gateway][case][value], one[base][case][value])
        for one in rounds
        if all(value in one.get(name, {}).get(case, {}) for name in (gateway, base))
    ]


def ratio(rounds: Sequence[Round], gateway: str, base: str, case: str, value: str) -> float | None:
    """The median of the rounds' own ratios."""
    pairs = [(ours, theirs) for ours, theirs in paired(rounds, gateway, base, case, value) if theirs]
    return statistics.median(ours / theirs for ours, theirs in pairs) if pairs else None


def _best_router(rounds: Sequence[Round], case: str) -> str | None:
    """The router in Rust that takes the least CPU in this case."""
    names = {name for one in rounds for name in one if "-router" in name}
    costs = {name: found.median for name in names if (found := figure(rounds, name, case, "cpu_us")) is not None}
    return min(costs, key=costs.__getitem__) if costs else None


def tables(rounds: Sequence[Round], cases: Sequence[Case], idle: int) -> str:
    names = list(rounds[0])
    parts = []
    for case in cases:
        lines = {"requests": _requests, "paced": _paced, "flood": _flood}[case.kind](rounds, names, case)
        parts.append("\n".join([*lines, *_errors(rounds, names, case)]))
    parts += [_memory(rounds, names, cases, idle), _noise(rounds)]
    return "\n\n".join(parts)


def _requests(rounds: Sequence[Round], names: Sequence[str], case: Case) -> list[str]:
    router = _best_router(rounds, case.key)
    return [
        case.title,
        f"{'':19}{'requests/s':>15}{'CPU µs/request':>16}{'/nginx':>7}{'router/':>8}{'p50 ms':>7}{'p99 ms':>8}",
        *(
            f"{name:19}{_counted(rounds, name, case, 'rate', 9, 0)}"
            f"{_counted(rounds, name, case, 'cpu_us', 10, 1)}{_against(rounds, name, case, router)}"
            f"{_scaled(rounds, name, case, 'p50_us', 7, 1e3)}{_scaled(rounds, name, case, 'p99_us', 8, 1e3)}"
            for name in names
        ),
    ]


def _paced(rounds: Sequence[Round], names: Sequence[str], case: Case) -> list[str]:
    return [
        f"{case.title}; times in µs",
        f"{'':19}{'CPU µs/chunk':>15}{'/nginx':>7}{'first p50':>10}{'p99':>10}{'+direct':>9}{'chunk p99':>10}",
        *(
            f"{name:19}{_counted(rounds, name, case, 'cpu_us', 9, 1)}"
            f"{_plain(ratio(rounds, name, BASE, case.key, 'cpu_us'), 7, 2)}"
            f"{_scaled(rounds, name, case, 'first_p50_us', 10, 1)}{_scaled(rounds, name, case, 'first_p99_us', 10, 1)}"
            f"{_added(rounds, name, case)}{_scaled(rounds, name, case, 'p99_us', 10, 1)}"
            for name in names
        ),
    ]


def _flood(rounds: Sequence[Round], names: Sequence[str], case: Case) -> list[str]:
    router = _best_router(rounds, case.key)
    return [
        case.title,
        f"{'':19}{'chunks/s':>15}{'CPU µs/chunk':>16}{'/nginx':>7}{'router/':>8}{'RSS MB':>8}{'/read':>6}",
        *(
            f"{name:19}{_counted(rounds, name, case, 'rate', 9, 0)}"
            f"{_counted(rounds, name, case, 'cpu_us', 10, 1)}{_against(rounds, name, case, router)}"
            f"{_scaled(rounds, name, case, 'rss_mb', 8, 1)}"
            f"{_shown(figure(rounds, name, case.key, 'chunks_per_read'), 6, 1)}"
            for name in names
        ),
    ]


def _memory(rounds: Sequence[Round], names: Sequence[str], cases: Sequence[Case], idle: int) -> str:
    held = sorted((case for case in cases if case.kind == "requests"), key=lambda case: (-case.connections, case.size))
    most = held[0] if held else None
    lines = [
        "Start (to the first answer) and memory (RSS of all its processes, MB)",
        f"{'':19}{'start s':>9}{'peak':>8}{f'{most.connections if most else 0} busy':>10}{f'{idle:,} idle':>12}"
        f"{'of them closed':>16}",
    ]
    for name in names:
        if name == DIRECT:
            continue
        busy = figure(rounds, name, most.key, "rss_mb") if most else None
        lines.append(
            f"{name:19}{_shown(figure(rounds, name, 'whole', 'start_s'), 9, 2)}"
            f"{_shown(figure(rounds, name, 'whole', 'peak_mb'), 8, 0)}{_shown(busy, 10, 0)}"
            f"{_shown(figure(rounds, name, 'idle', 'rss_mb'), 12, 0)}"
            f"{_shown(figure(rounds, name, 'idle', 'closed'), 16, 0)}"
        )
    return "\n".join(lines)


def _noise(rounds: Sequence[Round]) -> str:
    """How much of the gateway's core others took: a figure from a shared machine is worth less."""
    every = [values for one in rounds for cases in one.values() for values in cases.values()]
    shares = [values["foreign"] for values in every if "foreign" in values]
    if not shares:
        return ""
    usual, most = statistics.median(shares), max(shares)
    said = f"Others took {usual:.0%} of the gateway's core (at most {most:.0%})"
    return said + (": provisional figures." if usual > NOISE else ".")


def _errors(rounds: Sequence[Round], names: Sequence[str], case: Case) -> list[str]:
    found = {name: figure(rounds, name, case.key, "errors") for name in names}
    return [f"  {name}: up to {one.high:,.0f} errors a round" for name, one in found.items() if one and one.high]


def _counted(rounds: Sequence[Round], name: str, case: Case, value: str, width: int, digits: int) -> str:
    found = figure(rounds, name, case.key, value)
    if found is None:
        return f"{'–':>{width}}{'':6}"
    spread = f" ±{found.spread * 100:2.0f} %" if len(rounds) > 1 else ""
    return f"{found.median:>{width},.{digits}f}{spread:6}"


def _scaled(rounds: Sequence[Round], name: str, case: Case, value: str, width: int, unit: float) -> str:
    found = figure(rounds, name, case.key, value)
    if found is None:
        return f"{'–':>{width}}"
    number = found.median / unit
    return f"{number:>{width},.{2 if number < 10 and unit != 1 else 1 if unit != 1 else 0}f}"


def _against(rounds: Sequence[Round], name: str, case: Case, router: str | None) -> str:
    """CPU in nginx's, at most 1/0.6 is aimed at; and how often its CPU goes into that of the best router."""
    over_router = ratio(rounds, router, name, case.key, "cpu_us") if router else None
    return _plain(ratio(rounds, name, BASE, case.key, "cpu_us"), 7, 2) + _plain(over_router, 8, 2)


def _added(rounds: Sequence[Round], name: str, case: Case) -> str:
    pairs = paired(rounds, name, DIRECT, case.key, "first_p99_us")
    if not pairs or name == DIRECT:
        return f"{'–':>9}"
    return f"{statistics.median(ours - direct for ours, direct in pairs):>9,.0f}"


def _shown(found: Figure | None, width: int, digits: int) -> str:
    return _plain(found.median if found else None, width, digits)


def _plain(number: Any, width: int, digits: int) -> str:
    return f"{'–':>{width}}" if number is None else f"{number:>{width},.{digits}f}"
