"""The tables of a run, and where the pages of `specs/` keep them.

A page keeps the tables of a group between two comments, `<!-- measured: NAME -->` and `<!-- end: NAME -->`; what stands
between them is replaced by `python -m benchmarks.run --only NAME --write`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import Row

__all__ = ["PAGES", "tables", "write"]

PAGES = Path(__file__).parents[1] / "specs"


def tables(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown: wide tables of those that have a place in one, and one table of the others."""
    names = dict.fromkeys(row["place"]["table"] for row in rows if "place" in row)
    parts = [
        _wide_table(name, [row for row in rows if "place" in row and row["place"]["table"] == name]) for name in names
    ]
    others = [row for row in rows if "place" not in row]
    return "\n\n".join([*parts, *([_table(others)] if others else [])])


def write(name: str, text: str, pages: Path = PAGES) -> list[Path]:
    """Put `text` between the comments of a group on every page that has them, and return these pages.

    Raises:
        LookupError: no page has them.
    """
    pattern = re.compile(rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- end: {re.escape(name)} -->)", re.DOTALL)
    written = []
    for path in sorted(pages.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        changed, found = pattern.subn(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", page)
        if found:
            path.write_text(changed, encoding="utf-8")
            written.append(path)
    if not written:
        raise LookupError(
            f"No page in {str(pages)!r} has a place for {name!r}. Put `<!-- measured: {name} -->` and "
            f"`<!-- end: {name} -->` on lines of their own where its tables belong."
        )
    return written


def _table(rows: Sequence[Row]) -> str:
    lines = ["| what | measured | floor | ratio | target |", "|---|---|---|---|---|"]
    for row in rows:
        floor = "" if row["floor"] is None else f"{row['floor']:g} {row['unit']}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:g}"
        lines.append(f"| {row['name']} | {row['value']:g} {row['unit']} | {floor} | {ratio} | {row['target']} |")
    return "\n".join(lines)


def _wide_table(name: str, rows: Sequence[Row]) -> str:
    cells = {(row["place"]["line"], row["place"]["column"]): _cell(row) for row in rows}
    columns = list(dict.fromkeys(column for _, column in cells))
    lines = [f"| {name} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {line} | {' | '.join(cells.get((line, column), '') for column in columns)} |"
        for line in dict.fromkeys(line for line, _ in cells)
    ]
    return "\n".join(lines)


def _cell(row: Row) -> str:
    ratio = "" if row["ratio"] is None else f" ({row['ratio']:g} ×)"
    return row["place"].get("words", f"{_number(row['value'])}{ratio}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 10_000 else f"{value:g}"
