"""Draws what `fleet_agent.py --json FILE` measured: cost against fleet size, as an SVG.

python benchmarks/fleet_plot.py figures.json docs/fleet-cycle.svg
"""

import argparse
import json
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 24, 48
SERIES = (
    ("agent", "whole", "agent, wall", "#0b6e4f", ""),
    ("agent", "cpu", "agent, CPU", "#0b6e4f", "5 4"),
    ("bare", "whole", "bare client, wall", "#b4451f", ""),
    ("bare", "cpu", "bare client, CPU", "#b4451f", "5 4"),
)


def draw(sizes: list[dict[str, Any]]) -> str:
    """One line a series, milliseconds over targets, both linear and from zero."""
    most_targets: int = max(one["targets"] for one in sizes)
    most_ms = max(one["seconds"][name][part] * 1000 for one in sizes for name, part, *_ in SERIES)
    step = next(step for step in (20, 50, 100, 200, 500, 1000, 2000, 5000) if most_ms / step <= 6)
    top = step * (int(most_ms / step) + 1)

    def x(targets: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * targets / most_targets

    def y(ms: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ms / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for ms in range(0, top + 1, step):
        parts.append(f'<path d="M{LEFT} {y(ms):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(ms) + 4:.1f}" text-anchor="end" fill="#444">{ms}</text>')
    for one in sizes:
        at = x(one["targets"])
        parts.append(
            f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#444">{one["targets"]}</text>'
        )
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 10}" fill="#444">targets with ten adapters each, nothing to do</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 10}" fill="#444">ms a cycle</text>')
    for at, (name, part, label, colour, dash) in enumerate(SERIES):
        points = [(x(one["targets"]), y(one["seconds"][name][part] * 1000)) for one in sizes]
        line = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in [(x(0), y(0)), *points])
        parts.append(f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in points]
        legend = TOP + 20 * at + 10
        right = WIDTH - RIGHT + 16
        parts.append(f'<path d="M{right} {legend}h24" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
        parts.append(f'<text x="{right + 32}" y="{legend + 4}" fill="#222">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    shell = argparse.ArgumentParser(description="Draw cost against fleet size.")
    shell.add_argument("figures", type=Path)
    shell.add_argument("picture", type=Path)
    args = shell.parse_args()
    args.picture.write_text(draw(json.loads(args.figures.read_text())["sizes"]), encoding="utf-8")


if __name__ == "__main__":
    main()
