"""Runs the conformance suite and prints what each transport keeps: `python -m tests.conformance`."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from tests.conformance.exceptions import EXCEPTIONS
from tests.conformance.invariance import Tally, tally
from tests.conformance.subjects import Wire
from tests.conformance.table import Table, exceptions_table

__all__ = ["PAGE", "between", "main"]

ROOT = Path(__file__).parents[2]
SUITE = Path(__file__).parent
_PAGE_TEST = SUITE / "test_page.py"
PAGE = ROOT / "specs" / "conformance.md"
_WIRES: tuple[Wire, ...] = ("anthropic", "openai")


class Collector:
    """A pytest plug-in that fills the table, from results or from what was collected."""

    def __init__(self) -> None:
        self.table = Table()
        self.broken: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            self.table.add(report.nodeid, report.location[1] or 0, passed=report.passed)
            if report.failed:
                self.broken.append(report.nodeid)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.config.option.collectonly:
            for item in session.items:
                self.table.add(item.nodeid, item.location[1] or 0, passed=True)


def between(page: str, name: str) -> str:
    """Return what stands between the markers of this name."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", page, re.DOTALL)
    if found is None:
        raise ValueError(f"the page has no markers <!-- {name} --> and <!-- /{name} -->")
    return found[1].strip()


def _replaced(page: str, name: str, text: str) -> str:
    between(page, name)
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)


def _splits_table(tallies: dict[Wire, dict[str, Tally]]) -> str:
    lines = ["| Wire format | Cut | Splits | Pieces | Read otherwise |", "|---|---|---|---|---|"]
    lines += [
        f"| {wire} | {way} | {counted.splits:,} | {counted.pieces:,} | {counted.different} |"
        for wire, found in tallies.items()
        for way, counted in found.items()
    ]
    machine = f"Python {platform.python_version()}, aiohttp {aiohttp.__version__}, {os.cpu_count()} cores"
    return "\n".join([*lines, "", f"Measured with {machine}."])


async def _tallies(splits: int) -> dict[Wire, dict[str, Tally]]:
    return {wire: await tally(wire, splits) for wire in _WIRES}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; 0 when every transport keeps every promise but for the listed exceptions."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=main.__doc__)
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--splits", type=int, metavar="N", help="also read N random splits of each wire format")
    parser.add_argument("--workers", default="2", metavar="N", help="processes that share the suite (2)")
    parser.add_argument("--collect", action="store_true", help="run nothing; show the table as it is when all is kept")
    chosen = parser.parse_args(arguments)
    collector = Collector()
    options = ["--collect-only"] if chosen.collect else ["-n", chosen.workers]
    # Whether the page is up to date is no question about a transport.
    options += [
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        f"--rootdir={ROOT}",
        f"--ignore={SUITE / 'test_page.py'}",
    ]
    status = pytest.main([*options, str(SUITE)], plugins=[collector])
    tallies = asyncio.run(_tallies(chosen.splits)) if chosen.splits else {}
    different = sum(counted.different for found in tallies.values() for counted in found.values())
    table = collector.table.markdown()
    said = [table, exceptions_table(EXCEPTIONS), *([_splits_table(tallies)] if tallies else [])]
    sys.stdout.write("\n\n".join(["", *said, ""]))
    for nodeid in collector.broken:
        sys.stdout.write(f"FAILED {nodeid}\n")
    if chosen.write and not chosen.collect:
        page = _replaced(PAGE.read_text(encoding="utf-8"), "table", table)
        page = _replaced(page, "exceptions", exceptions_table(EXCEPTIONS))
        if tallies:
            page = _replaced(page, "splits", _splits_table(tallies))
        PAGE.write_text(page, encoding="utf-8")
    return int(status != pytest.ExitCode.OK or bool(collector.table.failed) or bool(different))


if __name__ == "__main__":
    raise SystemExit(main())
