"""The matrix as Markdown tables, and its place in `specs/fault-matrix.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.conformance.subjects import SUBJECTS
from tests.fault_matrix.advisor_path import PATH_POSITIONS, PathCell, PathOutcome
from tests.fault_matrix.catalogue import CASES, POSITIONS, WIRES, Case, Cell, Position
from tests.fault_matrix.outcome import Outcome

__all__ = ["PAGE", "page_with", "tables", "tables_of_page"]

PAGE = Path(__file__).parents[2] / "specs" / "fault-matrix.md"
BEGIN = "<!-- Written by `python -m tests.fault_matrix --write`: -->"
END = "<!-- End of what the command writes. -->"
NOTHING = "–"

_CALL_COLUMNS = ("Fault", "Where", "The caller gets", "Requests", "Met once", "Fallback", "Record")
_TURN_COLUMNS = ("Fault", "Wire", "Last event", "State", "Delivered, recorded", "Judgement", "Met once", "Call record")

Seen = TypeVar("Seen", bound=Outcome | PathOutcome)


def tables(calls: Mapping[Cell, Outcome], turns: Mapping[PathCell, PathOutcome]) -> str:
    """Return all tables; a cell that is in neither mapping cannot be."""
    parts = ["### At a glance", "", *_table(("Fault", *POSITIONS), _shapes(calls)), ""]
    for position in POSITIONS:
        parts += [f"### Calls: {position}", "", *_table(_CALL_COLUMNS, _call_rows(position, calls)), ""]
    for turn_position in PATH_POSITIONS:
        parts += [f"### Turns: {turn_position}", "", *_table(_TURN_COLUMNS, _turn_rows(turn_position, turns)), ""]
    return "\n".join(parts)


def page_with(page: str, written: str) -> str:
    """Return the page with its tables replaced."""
    head, _, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise ValueError(f"The page has no place for the tables: put the lines {BEGIN!r} and {END!r} into it.")
    return f"{head}{BEGIN}\n\n{written}\n{END}{tail}"


def tables_of_page(page: str) -> str:
    """Return the tables that a page holds."""
    return page.partition(BEGIN)[2].partition(END)[0].strip("\n") + "\n"


def _shapes(calls: Mapping[Cell, Outcome]) -> Iterator[Sequence[str]]:
    for case in CASES:
        yield (case.name, *(_shape_of_all(case, position, calls) for position in POSITIONS))


def _shape_of_all(case: Case, position: Position, calls: Mapping[Cell, Outcome]) -> str:
    found = [(str(each), calls.get(Cell(case, position, each))) for each in SUBJECTS]
    places: dict[str, list[str]] = {}
    for place, outcome in found:
        if outcome is not None:
            places.setdefault(_shape(outcome), []).append(place)
    usual = max(places, key=lambda shape: len(places[shape]), default=NOTHING)
    others = [f"{shape} ({', '.join(where)})" for shape, where in places.items() if shape != usual]
    return "; ".join([usual, *others])


def _shape(outcome: Outcome) -> str:
    if outcome.error is None:
        return "complete" if outcome.finish == "stop" else f"ended, `{outcome.finish}`"
    if outcome.shown != "nothing":
        return "broken off"
    if outcome.requests > 1:
        return "tried again"
    return "refused" if outcome.fallback == "not asked" else "given up"


def _call_rows(position: Position, calls: Mapping[Cell, Outcome]) -> Iterator[Sequence[str]]:
    found = {case.name: {str(each): calls.get(Cell(case, position, each)) for each in SUBJECTS} for case in CASES}
    return _rows(found, "everywhere", _call_cells, len(_CALL_COLUMNS))


def _turn_rows(position: Position, turns: Mapping[PathCell, PathOutcome]) -> Iterator[Sequence[str]]:
    found = {case.name: {str(wire): turns.get(PathCell(case, position, wire)) for wire in WIRES} for case in CASES}
    return _rows(found, "both", _turn_cells, len(_TURN_COLUMNS))


def _rows(
    found: Mapping[str, Mapping[str, Seen | None]],
    everywhere: str,
    cells_of: Callable[[Seen], Sequence[str]],
    width: int,
) -> Iterator[Sequence[str]]:
    """Yield a row for each fault and outcome with the places that have it, at the end what cannot be, and where."""
    missing: dict[str, list[str]] = {}
    for name, places in found.items():
        distinct: Mapping[Seen | None, None] = dict.fromkeys(places.values())
        for outcome in distinct:
            if outcome is not None:
                yield (name, _where(places, outcome, everywhere), *cells_of(outcome))
        if None in places.values():
            missing.setdefault(_where(places, None, everywhere), []).append(name)
    for where, names in missing.items():
        yield ("; ".join(names), where, *[NOTHING] * (width - 2))


def _where(places: Mapping[str, Seen | None], outcome: Seen | None, everywhere: str) -> str:
    found = [place for place, each in places.items() if each == outcome]
    return everywhere if len(found) == len(places) else ", ".join(found)


def _call_cells(outcome: Outcome) -> Sequence[str]:
    return (
        _received(outcome),
        str(outcome.requests),
        outcome.once,
        outcome.fallback,
        f"`{outcome.record}`",
    )


def _received(outcome: Outcome) -> str:
    if outcome.error is None:
        return f"{outcome.shown}; `{outcome.finish}`"
    wait = "" if outcome.retry_after is None else f", `retry_after` {outcome.retry_after:g}"
    before = "" if outcome.shown == "nothing" else f"{outcome.shown}, then "
    return f"{before}`{outcome.error}`, {'' if outcome.retryable else 'not '}retryable{wait}"


def _turn_cells(outcome: PathOutcome) -> Sequence[str]:
    end = f"`{outcome.last_event}`" + (f" with `{outcome.error}`" if outcome.error else f", `{outcome.finish}`")
    return (
        end,
        f"`{outcome.state}`",
        outcome.shown,
        f"`{outcome.judgement}`" if outcome.judgement else "none",
        f"`{outcome.once}`",
        f"`{outcome.record}`",
    )


def _table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(row)} |"
