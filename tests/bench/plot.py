"""A plot of bars as SVG, written by hand: a library for it would be larger than all else that the benchmark needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

__all__ = ["plot"]

_LEFT, _WIDTH, _ROW = 290, 420, 24
_MET, _MISSED, _LINE = "#4c8c5a", "#b5563c", "#888"


def plot(bars: Sequence[tuple[str, float, float, str]]) -> str:
    """A bar for each title, value, target and label, on a logarithmic scale; a tick on each bar is its target."""
    lowest = 10 ** math.floor(math.log10(min([value for _, value, _, _ in bars] + [1])))
    highest = max([max(value, target) for _, value, target, _ in bars] + [1]) * 1.1

    def x(value: float) -> float:
        return _LEFT + _WIDTH * math.log(max(value, lowest) / lowest) / math.log(highest / lowest)

    height = _ROW * len(bars) + 30
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 70} {height}" role="img" '
        'font-family="sans-serif" font-size="12" fill="#777">'
    )
    parts = [head, "<title>Cost as a multiple of the loop by hand, on a logarithmic scale</title>"]
    for index, (title, value, target, label) in enumerate(bars):
        top = _ROW * index + 4
        colour = _MET if value <= target else _MISSED
        parts += [
            f'<text x="{_LEFT - 8}" y="{top + 13}" text-anchor="end">{escape(title)}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{max(x(value) - _LEFT, 1):.1f}" height="16" fill="{colour}"/>',
            f'<path d="M{x(target):.1f} {top - 2}v20" stroke="{_LINE}" stroke-width="2"/>',
            f'<text x="{max(x(value), x(target)) + 6:.1f}" y="{top + 13}">{escape(label)}</text>',
        ]
    parts += [
        f'<path d="M{x(1):.1f} 0V{height - 20}" stroke="{_LINE}" stroke-dasharray="3 3"/>',
        f'<text x="{x(1):.1f}" y="{height - 6}" text-anchor="middle">the loop by hand</text>',
        "</svg>\n",
    ]
    return "\n".join(parts)
