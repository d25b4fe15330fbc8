"""What a benchmark reports."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["Row"]


class Row(TypedDict):
    """One measured figure; `floor` is the barest way to do the same in the same run, `target` the figure to reach."""

    name: str
    unit: str
    value: float
    floor: float | None
    ratio: float | None
    target: str
