"""Charts of an audit as SVG, drawn by the program: nothing is fetched, and every figure is also told in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Bar", "Part", "bars", "columns", "share_bar"]

_WIDTH = 720
_LABEL, _FIGURE, _ROW, _BAR = 190, 90, 28, 16
_HEIGHT, _LEFT, _BOTTOM, _TOP = 240, 44, 34, 14
_WIDEST_COLUMN = 56
_CHARACTER = 7
"""About how wide a character is. A label that needs more than its place is cut, or stands for its neighbours too."""


class Part(NamedTuple):
    """A stretch of a bar: its class in the page's style, what it stands for, and how much of it there is."""

    kind: str
    name: str
    value: int


class Bar(NamedTuple):
    """A bar with its label; its parts stand one after the other."""

    label: str
    parts: Sequence[Part]

    @property
    def total(self) -> int:
        return sum(part.value for part in self.parts)

    @property
    def said(self) -> str:
        told = ", ".join(f"{part.value:,} {part.name}" for part in self.parts if part.value)
        return f"{self.label}: {told or 'none'}"


def bars(found: Sequence[Bar], *, title: str) -> str:
    """Return bars that lie below each other, the longest as wide as there is room."""
    most = max((bar.total for bar in found), default=0)
    scale = (_WIDTH - _LABEL - _FIGURE) / most if most else 0.0
    drawn = []
    for number, bar in enumerate(found):
        y = number * _ROW
        drawn.append(_text(_LABEL - 10, y + _ROW / 2, _cut(bar.label, _LABEL - 10), anchor="end"))
        x = float(_LABEL)
        for part in bar.parts:
            if part.value:
                drawn.append(_rectangle(x, y + (_ROW - _BAR) / 2, part.value * scale, _BAR, part, bar.label))
                x += part.value * scale
        drawn.append(_text(x + 8, y + _ROW / 2, f"{bar.total:,}", kind="figure"))
    return _svg(_WIDTH, max(1, len(found)) * _ROW, title, found, drawn)


def columns(found: Sequence[Bar], *, title: str) -> str:
    """Return columns that stand beside each other over a common scale."""
    most = max((bar.total for bar in found), default=0)
    step = _step(most)
    highest = max(step, math.ceil(most / step) * step)
    room = _HEIGHT - _TOP - _BOTTOM
    drawn = []
    for value in range(0, highest + 1, step):
        y = _HEIGHT - _BOTTOM - value / highest * room
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(_text(_LEFT - 8, y, f"{value:,}", anchor="end", kind="scale"))
    place = (_WIDTH - _LEFT) / max(1, len(found))
    width = min(_WIDEST_COLUMN, place * 0.7)
    longest = max((len(bar.label) for bar in found), default=0)
    every = math.ceil((longest + 2) * _CHARACTER / place)
    for number, bar in enumerate(found):
        middle = _LEFT + (number + 0.5) * place
        y = float(_HEIGHT - _BOTTOM)
        for part in bar.parts:
            height = part.value / highest * room
            y -= height
            if part.value:
                drawn.append(_rectangle(middle - width / 2, y, width, height, part, bar.label))
        if number % every == 0:
            drawn.append(_text(middle, _HEIGHT - _BOTTOM + 18, bar.label, anchor="middle", kind="scale"))
    return _svg(_WIDTH, _HEIGHT, title, found, drawn)


def share_bar(share: float | None, *, title: str) -> str:
    """Return a small bar for a share from 0 to 1; nothing where it is not known."""
    if share is None:
        return ""
    return (
        f'<svg class="share" viewBox="0 0 100 8" role="img" aria-label="{escape(title)}" '
        f'preserveAspectRatio="none"><rect class="rest" width="100" height="8"/>'
        f'<rect class="passed" width="{share * 100:.1f}" height="8"/></svg>'
    )


def _svg(width: int, height: int, title: str, found: Sequence[Bar], drawn: Sequence[str]) -> str:
    told = escape(f"{title}. {'; '.join(bar.said for bar in found) or 'Nothing'}.")
    inside = "".join(drawn)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{told}">'
        f"<title>{escape(title)}</title>{inside}</svg>"
    )


def _rectangle(x: float, y: float, width: float, height: float, part: Part, label: str) -> str:
    told = escape(f"{label}: {part.value:,} {part.name}")
    return (
        f'<rect class="{escape(part.kind)}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
        f"<title>{told}</title></rect>"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "label") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" dy="0.35em" text-anchor="{anchor}">{escape(text)}</text>'


def _cut(label: str, room: int) -> str:
    longest = room // _CHARACTER
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def _step(most: int) -> int:
    """Return the distance of the lines of a scale: 1, 2 or 5 times a power of ten, and some five of them."""
    power = int(10 ** max(0, math.floor(math.log10(max(1, most) / 5))))
    return next(each * power for each in (1, 2, 5, 10) if each * power * 5 >= most)
