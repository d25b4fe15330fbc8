"""Tables of a benchmark, and their places on the pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import pages
from benchmarks.rows import Place, Row


def row(name: str, value: float, *, ratio: float | None = None, place: Place | None = None) -> Row:
    made = Row(name=name, unit="ms", value=value, floor=2.0, ratio=ratio, target="≤ 3")
    if place is not None:
        made["place"] = place
    return made


def test_figures_with_a_place_make_wide_tables_and_the_others_one_of_their_own() -> None:
    rows = [
        row("a", 4.0, ratio=2.0, place=Place(table="wire", line="ours", column="first")),
        row("b", 1.0, place=Place(table="wire", line="ours", column="end", words="**success**")),
        row("c", 8.0, place=Place(table="wire", line="theirs", column="first")),
        row("d", 5.0, ratio=2.5),
    ]
    assert pages.tables(rows).splitlines() == [
        "| wire | first | end |",
        "|---|---|---|",
        "| ours | 4 (2 ×) | **success** |",
        "| theirs | 8 |  |",
        "",
        "| what | measured | floor | ratio | target |",
        "|---|---|---|---|---|",
        "| d | 5 ms | 2 ms | 2.5 | ≤ 3 |",
    ]


def test_writing_replaces_what_stood_in_the_place_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured: peers -->\n<!-- end: peers -->\nafter\n", encoding="utf-8")
    untouched = tmp_path / "other.md"
    untouched.write_text("<!-- measured: kills -->\nold\n<!-- end: kills -->\n", encoding="utf-8")
    for text in (r"| \1 |", "| new |"):
        assert pages.write("peers", text, tmp_path) == [page]
    expected = "before\n<!-- measured: peers -->\n\n| new |\n\n<!-- end: peers -->\nafter\n"
    assert page.read_text(encoding="utf-8") == expected
    assert "old" in untouched.read_text(encoding="utf-8")


def test_writing_without_a_place_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="measured: peers"):
        pages.write("peers", "| new |", tmp_path)
