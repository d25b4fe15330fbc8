"""The page shows the matrix that the tests hold, and the command says when the two differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault_matrix import __main__ as command
from tests.fault_matrix.advisor_path import path_cells
from tests.fault_matrix.catalogue import CASES, POSITIONS, WIRES, cells, exists
from tests.fault_matrix.expected import EXCEPTIONS, ROWS, expected
from tests.fault_matrix.expected_turns import expected_turn
from tests.fault_matrix.page import BEGIN, END, PAGE, page_with, tables, tables_of_page


def expected_tables() -> str:
    return tables(
        {cell: expected(cell) for cell in cells()},
        {cell: expected_turn(cell) for cell in path_cells()},
    )


def test_the_page_lists_the_cells_that_the_tests_hold() -> None:
    written = tables_of_page(PAGE.read_text(encoding="utf-8"))
    assert written == expected_tables(), "run `python -m tests.fault_matrix --write`"


def test_every_fault_is_promised_something_and_nothing_is_promised_of_what_cannot_be() -> None:
    assert set(ROWS) == {case.name for case in CASES}
    assert {name for name, _ in EXCEPTIONS} <= set(ROWS)
    assert len(CASES) == len({case.name for case in CASES})
    assert all(expected(cell).requests for cell in cells())


def test_cells_that_cannot_be_are_left_out_by_rule() -> None:
    existing = {(cell.case.name, cell.position, cell.subject.wire) for cell in cells()}
    assert existing == {
        (case.name, position, wire)
        for case in CASES
        for position in POSITIONS
        for wire in WIRES
        if exists(case, position, wire)
    }
    assert ("500", "after the first text", "openai") not in existing
    assert ("429, quota used up", "before the first text", "anthropic") not in existing
    assert ("error event, overloaded", "not streamed", "openai") not in existing


def test_a_page_without_a_place_for_the_tables_is_refused() -> None:
    with pytest.raises(ValueError, match="no place"):
        page_with("# A page\n", "tables")


@pytest.mark.parametrize("differs", [False, True])
def test_the_command_writes_what_it_observed_and_fails_when_that_is_not_what_was_expected(
    differs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    some = [cell for cell in cells(wire="openai") if cell.case.name == "500" and cell.subject.transport == "native"]
    monkeypatch.setattr(command, "PAGE", page)
    monkeypatch.setattr(command, "cells", lambda: some)
    monkeypatch.setattr(command, "path_cells", list)
    if differs:
        complete = next(cell for cell in cells() if expected(cell).error is None)
        monkeypatch.setattr(command, "expected", lambda _: expected(complete))
    assert command.main(["--write"]) == (1 if differs else 0)
    text = page.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("After.\n")
    assert "| 500 | native-openai | `ProviderUnavailableError`, retryable | 3 | answered by request 2 |" in text
    assert ("expected Outcome" in capsys.readouterr().err) is differs
