"""The cache report as tables for a person and as JSON for a program."""

from __future__ import annotations

import dataclasses
import io
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from guidance_agent.core.cache_report import CacheFigures, CacheReport, CacheSection, PartFigures

if TYPE_CHECKING:
    from guidance_agent.cli.cache import Breakdown

__all__ = ["report_as_json", "report_as_text"]

SIMULATED = "Simulated calls. Nobody paid for them; the money is what calls of this size would cost at list price."
REAL = "Real calls."
_WIDTH_OF_A_FILE = 140


def report_as_json(report: CacheReport, by: Sequence[Breakdown]) -> dict[str, Any]:
    """Return the report as plain values; what is not known is null."""
    return {
        "since": None if report.since is None else report.since.isoformat(),
        "until": None if report.until is None else report.until.isoformat(),
        "sections": [_section_as_json(section, by) for section in report.sections],
    }


def _section_as_json(section: CacheSection, by: Sequence[Breakdown]) -> dict[str, Any]:
    broken_down: dict[str, Any] = {}
    for each in by:
        if each == "part":
            broken_down["part"] = {name: dataclasses.asdict(part) for name, part in section.parts.items()}
        else:
            broken_down[each.value] = {
                name: _figures_as_json(figures) for name, figures in section.lines[each.value].items()
            }
    return {"simulated": section.simulated, "total": _figures_as_json(section.total), "by": broken_down}


def _figures_as_json(figures: CacheFigures) -> dict[str, Any]:
    return {
        **{field.name: getattr(figures, field.name) for field in dataclasses.fields(figures)},
        "outcomes": dict(figures.outcomes),
        "hits": figures.hits,
        "total_input_tokens": figures.total_input_tokens,
        "read_share": figures.read_share,
        "saved_usd": figures.saved_usd,
    }


def report_as_text(report: CacheReport, by: Sequence[Breakdown]) -> str:
    """Return the report for a terminal, or for a file that a person reads."""
    to_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if to_terminal else _WIDTH_OF_A_FILE
    printed = io.StringIO()
    console = Console(file=printed, width=width, force_terminal=to_terminal, highlight=False, markup=False, emoji=False)
    for section in report.sections:
        _print_section(console, section, by)
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines()) + "\n"


def _print_section(console: Console, section: CacheSection, by: Sequence[Breakdown]) -> None:
    console.print(SIMULATED if section.simulated else REAL, style="bold")
    console.print(_figures_table("", {"all calls": section.total}))
    for each in by:
        if each == "part":
            console.print(_parts_table(section.parts))
        else:
            console.print(_figures_table(each.value, section.lines[each.value]))
    console.print(_outcomes_table(section.total.outcomes))
    for note in _notes(section.total):
        console.print(note, style="dim")
    console.print()


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", overflow="fold")
    return table


def _figures_table(title: str, lines: Mapping[str, CacheFigures]) -> Table:
    table = _table(title, "calls", "hits", "input tokens", "read", "written 5 m", "written 1 h", "read share", "saved")
    for name, line in lines.items():
        table.add_row(
            name,
            f"{line.calls:,}",
            f"{line.hits:,}",
            _count(line, line.total_input_tokens),
            _count(line, line.read_tokens),
            _count(line, line.written_5m_tokens),
            _count(line, line.written_1h_tokens),
            "unknown" if line.read_share is None else f"{line.read_share:.1%}",
            _saved(line),
        )
    return table


def _parts_table(parts: Mapping[str, PartFigures]) -> Table:
    table = _table("part", "calls", "read", "beginning read", "written", "paid in full", "changed")
    for name, part in parts.items():
        figures = (part.calls, part.read, part.extended, part.written, part.uncached, part.changed)
        table.add_row(name, *(f"{figure:,}" for figure in figures))
    return table


def _outcomes_table(outcomes: Mapping[str, int]) -> Table:
    table = _table("label", "calls")
    for label, calls in sorted(outcomes.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(label, f"{calls:,}")
    return table


def _count(line: CacheFigures, tokens: int) -> str:
    if line.without_usage == line.calls:
        return "unknown"
    return f"{'≈ ' if line.estimated else ''}{tokens:,}"


def _saved(line: CacheFigures) -> str:
    if line.saved_usd is None or line.uncached_usd is None:
        return "unknown"
    amount = f"{'-' if line.saved_usd < 0 else ''}${abs(line.saved_usd):,.4f}"
    share = f" ({line.saved_usd / line.uncached_usd:.0%})" if line.uncached_usd else ""
    mark = "≈ " if line.estimated else ""
    partly = f", {line.without_price:,} without price" if line.without_price else ""
    return f"{mark}{amount}{share}{partly}"


def _notes(total: CacheFigures) -> Iterator[str]:
    if total.estimated:
        yield f"≈ {_calls(total.estimated)} reported only a part of the usage; the rest of it is estimated."
    if total.without_usage:
        yield f"{_calls(total.without_usage)} reported no usage and count in no other column."
    if total.without_price:
        yield (
            f"{_calls(total.without_price)} of a model without a known price: not in the saving. State prices in a "
            "file: GUIDANCE_PRICES_FILE."
        )


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number:,} calls"
