"""Curves as SVG, written by hand: two axes, some lines and their names need no library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Mapping, Sequence
from html import escape

__all__ = ["draw_curves"]

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 24, 48
_GREY = "#b8c4d0"
_COLOURS = ("#1f6fb4", "#c2452d", "#2e8b57", "#8a5fb0", "#b0862a", "#555555")

Points = Sequence[tuple[float, float]]


def draw_curves(
    curves: Mapping[str, Points],
    x_name: str,
    y_name: str,
    *,
    log_x: bool,
    faint: Container[str] = (),
) -> str:
    """A picture of some curves.

    Args:
        curves: Name → points (x, y), in order of x; points that are not finite are left out.
        x_name: What x is, with its unit.
        y_name: What y is, with its unit.
        log_x: Whether equal factors of x, instead of equal steps, are equally far apart.
        faint: Names of curves that stand behind the others, in grey.

    Returns:
        An SVG document.
    """
    finite = {
        name: [(x, y) for x, y in points if math.isfinite(x + y) and (x > 0 or not log_x)]
        for name, points in curves.items()
    }
    every = [point for points in finite.values() for point in points]
    if not every:
        return _document([])
    xs, ys = zip(*every, strict=True)
    x_axis = _Axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT, log=log_x)
    y_axis = _Axis(min(ys), max(ys), _HEIGHT - _BOTTOM, _TOP, log=False)
    parts = _axes(x_axis, y_axis, x_name, y_name)
    colours = itertools.cycle(_COLOURS)
    for number, (name, points) in enumerate(finite.items()):
        colour = _GREY if name in faint else next(colours)
        line = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        if len(points) < 50:
            parts += [
                f'<circle cx="{x_axis.at(x):.1f}" cy="{y_axis.at(y):.1f}" r="2.5" fill="{colour}"/>'
                for x, y in points
            ]
        height = _TOP + 18 * number + 10
        parts.append(_text(_WIDTH - _RIGHT + 12, height, name, f'fill="{colour}"'))
    return _document(parts)


class _Axis:
    """Numbers `low` … `high` → places `start` … `end` of the picture."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool) -> None:
        self._log = log
        margin = 0.0 if log else (high - low or abs(high) or 1.0) * 0.04
        self._low, self._high = self._scale(low - margin), self._scale(high + margin)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        span = self._high - self._low or 1.0
        share = (self._scale(value) - self._low) / span
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        span = self._high - self._low or 1.0
        if self._log:
            return [10**power for power in range(math.ceil(self._low), int(self._high) + 1)]
        step = 10 ** math.floor(math.log10(span / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
        first = math.ceil(self._low / step)
        return [n * step for n in range(first, math.floor(self._high / step) + 1)]

    def _scale(self, value: float) -> float:
        return math.log10(value) if self._log else value


def _axes(x_axis: _Axis, y_axis: _Axis, x_name: str, y_name: str) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for tick in y_axis.ticks():
        y = y_axis.at(tick)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#dddddd"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{tick:g}", 'text-anchor="end"'))
    parts += [
        _text(x_axis.at(tick), bottom + 18, _label(tick), 'text-anchor="middle"')
        for tick in x_axis.ticks()
    ]
    parts.append(f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#333333"/>')
    parts.append(_text((_LEFT + right) / 2, bottom + 38, x_name, 'text-anchor="middle"'))
    turned = f'text-anchor="middle" transform="rotate(-90 16 {(_TOP + bottom) / 2})"'
    parts.append(_text(16, (_TOP + bottom) / 2, y_name, turned))
    return parts


def _label(number: float) -> str:
    """A number as people read it: 0.5, 20k, 1.5M, 2B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'


def _document(parts: Sequence[str]) -> str:
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#ffffff"/>'
    )
    return "\n".join([start, *parts, "</svg>\n"])
