"""Observe the whole matrix and print it as Markdown tables.

    python -m tests.fault_matrix            prints the tables
    python -m tests.fault_matrix --write    puts them into specs/fault-matrix.md

It takes about a minute and a half. The exit status is 0 when every cell is as expected, and 1 when one is not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Protocol, TypeVar

from tests.fault_matrix.advisor_path import PathCell, PathOutcome, observe_turns, path_cells
from tests.fault_matrix.catalogue import Cell, cells
from tests.fault_matrix.expected import expected
from tests.fault_matrix.expected_turns import expected_turn
from tests.fault_matrix.outcome import Outcome
from tests.fault_matrix.page import PAGE, page_with, tables
from tests.fault_matrix.runner import observe

__all__ = ["main"]

Square = TypeVar("Square", Cell, PathCell)
Seen = TypeVar("Seen", Outcome, PathOutcome, covariant=True)


class _Observed(Protocol[Seen]):
    @property
    def outcome(self) -> Seen: ...

    @property
    def broken_rules(self) -> tuple[str, ...]: ...


def main(arguments: list[str] | None = None) -> int:
    """Observe, print or write, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fault_matrix", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="update the page instead of printing the tables")
    chosen = parser.parse_args(arguments)
    # How this machine is set up must not change what is observed.
    for name in [name for name in os.environ if name.startswith("GUIDANCE_")]:
        del os.environ[name]
    differences: list[str] = []
    calls, turns = asyncio.run(_observe_all(differences))
    written = tables(calls, turns)
    if chosen.write:
        PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), written), encoding="utf-8")
    else:
        sys.stdout.write(written)
    for difference in differences:
        sys.stderr.write(f"{difference}\n")
    sys.stderr.write(f"{len(calls)} calls and {len(turns)} turns observed; {len(differences)} differences\n")
    return 1 if differences else 0


async def _observe_all(differences: list[str]) -> tuple[dict[Cell, Outcome], dict[PathCell, PathOutcome]]:
    calls = await _each(list(cells()), observe, expected, differences)
    turns = await _each(list(path_cells()), observe_turns, expected_turn, differences)
    return calls, turns


async def _each(
    squares: Collection[Square],
    look: Callable[[Square], Awaitable[_Observed[Seen]]],
    promised: Callable[[Square], Seen],
    differences: list[str],
) -> dict[Square, Seen]:
    found = {}
    # One after the other: the short time-outs of some cells leave no time for the work of others.
    for number, square in enumerate(squares, start=1):
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{number} of {len(squares)}")
        observation = await look(square)
        found[square] = observation.outcome
        differences += _differences(square, observation, promised(square))
    if sys.stderr.isatty():
        sys.stderr.write("\r")
    return found


def _differences(square: Cell | PathCell, observation: _Observed[Seen], promised: Seen) -> Iterator[str]:
    yield from (f"{square}: {rule}" for rule in observation.broken_rules)
    if observation.outcome != promised:
        yield f"{square}: expected {promised}, observed {observation.outcome}"


if __name__ == "__main__":
    sys.exit(main())
