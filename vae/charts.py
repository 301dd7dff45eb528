"""Line charts as SVG that stays legible on a phone: few words, dashes beside colours, nothing that needs a script."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from vae.sections import Figure

INK, MUTED, FAINT = "#1f2937", "#4b5563", "#e5e7eb"
BLUE, ORANGE, TEAL, RED = "#1d4ed8", "#b45309", "#0f766e", "#9f1239"
WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM, LINE = 62, 10, 8, 42, 18
"""Margins of what is drawn, and the height of a line of the legend."""
SHORT = 26
FAR = 1e300
"""Numbers beyond it are not drawn: what lies between two of them may be infinite."""


class Line(NamedTuple):
    """A line of a chart; it has gaps where `y` is NaN or beyond `FAR`."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str = INK
    dash: str = ""
    """As SVG's stroke-dasharray; lines are told apart without colours."""
    dots: bool = False
    """Whether each of its points is marked."""


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str = "",
    *,
    ticks: Sequence[tuple[float, str]] = (),
    zero: bool = False,
) -> str:
    """The lines over common axes. `ticks`: marks of the x axis, else round numbers; `zero`: the y axis begins at 0."""
    x_low, x_high = _reach([x for line in lines for x in line.x])
    y_low, y_high = _reach([y for line in lines for y in line.y] + [0.0] * zero)
    marks = list(ticks) or [(tick, short_number(tick)) for tick in round_ticks(x_low, x_high)]
    legend = LINE * (-(-len(lines) // 2) + bool(y_label))
    top, bottom, right = TOP + legend, HEIGHT + legend - BOTTOM, WIDTH - RIGHT

    def across(x: float) -> float:
        return LEFT + 6 + (right - LEFT - 12) * (x - x_low) / (x_high - x_low)

    def up(y: float) -> float:
        return bottom - (bottom - top - 6) * (y - y_low) / (y_high - y_low)

    parts = [_legend(lines)]
    for tick in round_ticks(y_low, y_high):
        parts.append(f'<path d="M{LEFT} {up(tick):.1f}H{right}" stroke="{FAINT}"/>')
        parts.append(_text(short_number(tick), LEFT - 6, up(tick) + 4, "end"))
    parts += [_text(words, across(place), bottom + 16, "middle") for place, words in marks]
    parts.append(f'<path d="M{LEFT} {bottom}H{right}" stroke="{MUTED}"/>')
    parts.append(_text(x_label, (LEFT + right) / 2, bottom + 34, "middle"))
    parts += [_text(y_label, 8, top - 4, "start")] if y_label else []
    parts += [
        _drawn(
            line, [(across(x), up(y) if _is_drawn(y) else None) for x, y in zip(line.x, line.y, strict=True)]
        )
        for line in lines
    ]
    height = HEIGHT + legend
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="12.5" fill="{MUTED}">{"".join(parts)}</svg>'
    )


def figure(svg: str, alt: str, caption: str) -> Figure:
    """A chart as the page holds it."""
    return Figure(
        "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode(), alt, caption, small=True
    )


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most so many round numbers from `low` to `high`, evenly spaced by 1, 2 or 5 times a power of ten.

    >>> round_ticks(0, 37), round_ticks(-0.31, 0.29)
    ([0.0, 10.0, 20.0, 30.0], [-0.2, 0.0, 0.2])
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if (high - low) / (factor * power) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(k * step, digits) + 0.0 for k in range(first, last + 1)]


def short_number(value: float) -> str:
    """A number in few characters.

    >>> short_number(12_500.0), short_number(0.25), short_number(3.2e9), short_number(-40.0)
    ('12,500', '0.25', '3.2e+09', '-40')
    """
    if value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _reach(values: Sequence[float]) -> tuple[float, float]:
    """From the smallest finite value to the largest, and never nothing."""
    drawn = [value for value in values if _is_drawn(value)]
    low, high = min(drawn, default=0.0), max(drawn, default=1.0)
    room = max(1e-9 * max(abs(low), abs(high)), 1 / FAR)
    return (low, high) if high - low > room else (low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5))


def _is_drawn(value: float) -> bool:
    return abs(value) < FAR  # which NaN is not


def _text(words: str, x: float, y: float, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _stroke(line: Line) -> str:
    dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
    return f'fill="none" stroke="{line.color}" stroke-width="1.8" stroke-linejoin="round"{dash}'


def _drawn(line: Line, points: Sequence[tuple[float, float | None]]) -> str:
    """A line's path, broken where a point is missing, and its dots."""
    steps: list[str] = []
    dots: list[str] = []
    begun = False
    for x, y in points:
        if y is not None:
            steps.append(f"{'L' if begun else 'M'}{x:.1f} {y:.1f}")
            dots += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{line.color}"/>'] if line.dots else []
        begun = y is not None
    return f'<path d="{"".join(steps)}" {_stroke(line)}/>' + "".join(dots)


def _legend(lines: Sequence[Line]) -> str:
    """Names of the lines, two beside each other."""
    parts: list[str] = []
    for place, line in enumerate(lines):
        x, y = 8 + (place % 2) * WIDTH // 2, TOP + 6 + LINE * (place // 2)
        dot = f'<circle cx="{x + 14}" cy="{y}" r="3.5" fill="{line.color}"/>' if line.dots else ""
        name = line.name if len(line.name) <= SHORT else line.name[: SHORT - 1] + "…"
        parts.append(f'<path d="M{x} {y}h28" {_stroke(line)}/>{dot}{_text(name, x + 34, y + 4, "start")}')
    return "".join(parts)
