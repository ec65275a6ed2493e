"""Draws what `run.py --json FILE` measured: the gateways' CPU time a request and a chunk, as an SVG.

python benchmarks/gateway/plot.py figures.json docs/gateway.svg
"""

import argparse
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from report import Case, Figure, Round, figure

WIDTH, LEFT, RIGHT, TOP = 720, 150, 90, 16
BAR, GAP, TITLE = 18, 16, 22
COLOURS = ("#0b6e4f", "#b4451f", "#3a5a9b", "#8a6d1f", "#6b4a8b", "#4a7a8b", "#8b4a5f", "#5f6b2f")
CONNECTIONS = 32  # of the cases with requests that are drawn


def draw(rounds: Sequence[Round], cases: Sequence[Case]) -> str:
    """A group of bars a case, each group on a scale of its own from zero; a line from the least to the most."""
    names = [name for name in rounds[0] if any("cpu_us" in values for values in rounds[0][name].values())]
    colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(names)}
    parts: list[str] = []
    at = TOP
    for case in _drawn(cases):
        found = {name: one for name in names if (one := figure(rounds, name, case.key, "cpu_us")) is not None}
        if not found:
            continue
        what = "request" if case.kind == "requests" else "chunk"
        parts.append(f'<text x="{LEFT}" y="{at + 14}" fill="#222">{escape(case.title)}: CPU µs a {what}</text>')
        at += TITLE
        most = max(one.high for one in found.values())
        for name, one in found.items():
            parts += _bar(name, one, most, at, colours[name])
            at += BAR
        at += GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {at}" font-family="sans-serif" '
            'font-size="12">',
            f'<rect width="{WIDTH}" height="{at}" fill="white"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _drawn(cases: Sequence[Case]) -> list[Case]:
    counts = sorted({case.connections for case in cases if case.kind == "requests"})
    count = CONNECTIONS if CONNECTIONS in counts else counts[-1] if counts else 0
    return [case for case in cases if case.kind != "requests" or case.connections == count]


def _bar(name: str, one: Figure, most: float, at: int, colour: str) -> list[str]:
    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / most

    middle = at + BAR / 2
    return [
        f'<text x="{LEFT - 8}" y="{middle + 4}" text-anchor="end" fill="#444">{escape(name)}</text>',
        f'<rect x="{LEFT}" y="{at + 2}" width="{x(one.median) - LEFT:.1f}" height="{BAR - 4}" fill="{colour}"/>',
        f'<path d="M{x(one.low):.1f} {middle}H{x(one.high):.1f}" stroke="#222"/>',
        f'<text x="{x(one.high) + 6:.1f}" y="{middle + 4}" fill="#222">{one.median:,.1f}</text>',
    ]


def main() -> None:
    shell = argparse.ArgumentParser(description="Draw what gateways cost.")
    shell.add_argument("figures", type=Path)
    shell.add_argument("picture", type=Path)
    args = shell.parse_args()
    found = json.loads(args.figures.read_text())
    args.picture.write_text(draw(found["rounds"], [Case(**case) for case in found["cases"]]), encoding="utf-8")


if __name__ == "__main__":
    main()
