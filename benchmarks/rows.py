"""What a benchmark reports."""

from __future__ import annotations

from typing import NotRequired, TypedDict

__all__ = ["Place", "Row"]


class Place(TypedDict):
    """Where a wide table shows a figure, and in which words if not in numbers."""

    table: str
    line: str
    column: str
    words: NotRequired[str]


class Row(TypedDict):
    """One measured figure; `floor` is the barest way to do the same in the same run, `target` the figure to reach.

    `broken` says that a promise was broken, whatever the machine was doing: the run ends with an error.
    """

    name: str
    unit: str
    value: float
    floor: float | None
    ratio: float | None
    target: str
    place: NotRequired[Place]
    broken: NotRequired[bool]
