"""An insight report for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from guidance_agent.cli.insight_sections import Section, heading, sections, summary
from guidance_agent.cli.terminal_text import on_one_line, plain, wrapped
from guidance_agent.core.insight_records import StoredReport

__all__ = ["report_as_markdown", "report_as_text"]

_LONGEST_CELL = 34


def report_as_text(report: StoredReport) -> str:
    """Return the report for a terminal; long words stand below their row."""
    title, origin = heading(report)
    parts = [f"{title}\n{origin}\n", wrapped(summary(report), "")]
    for section in sections(report):
        parts.append("\n".join(("", section.title.upper(), *_rows(section))))
        if section.note:
            parts.append(wrapped(section.note))
    return "\n".join(parts) + "\n"


def _rows(section: Section) -> Iterator[str]:
    short = [
        column
        for column in range(len(section.header))
        if column in section.figures or all(len(row[column]) <= _LONGEST_CELL for row in section.rows)
    ]
    wide = [column for column in range(len(section.header)) if column not in short]
    widths = {
        column: max(len(section.header[column]), *(len(plain(row[column])) for row in section.rows)) for column in short
    }
    if any(section.header[column] for column in short):
        yield _line(section, section.header, short, widths)
    for row in section.rows:
        # What a row is about comes first, however long it is.
        if 0 in wide:
            yield wrapped(row[0])
        if short:
            yield _line(section, row, short, widths)
        for column in wide:
            if column and row[column]:
                yield wrapped(row[column], "      ")


def _line(section: Section, row: Sequence[str], columns: Sequence[int], widths: dict[int, int]) -> str:
    cells = [
        plain(row[column]).rjust(widths[column])
        if column in section.figures
        else plain(row[column]).ljust(widths[column])
        for column in columns
    ]
    return f"  {'  '.join(cells)}".rstrip()


def report_as_markdown(report: StoredReport) -> str:
    """Return the report as Markdown; nothing in a model's words can be a mark of it."""
    title, origin = heading(report)
    lines = [f"# Insights: {_cell(title)}", "", _cell(origin), "", _cell(summary(report))]
    for section in sections(report):
        lines += ["", f"## {section.title}", ""]
        lines.append(f"| {' | '.join(section.header)} |")
        marks = ["---:" if column in section.figures else "---" for column in range(len(section.header))]
        lines.append(f"| {' | '.join(marks)} |")
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in section.rows]
        if section.note:
            lines += ["", section.note]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    line = on_one_line(text, longest=10_000)
    for mark in "\\`*_{}[]<>#|":
        line = line.replace(mark, f"\\{mark}")
    return line
