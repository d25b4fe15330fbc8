"""The suite's results as Markdown: a row for each promise, a column for each transport."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill

from tests.conformance.exceptions import EXCEPTIONS, KnownException, case_of, exception_of
from tests.conformance.subjects import SUBJECTS

__all__ = ["Row", "Table", "exceptions_table", "title_of"]

_FOLDER = Path(__file__).parent
_NAMES = tuple(map(str, SUBJECTS))
_PREFIX = "test_"
_FILES = (
    "test_answers.py",
    "test_usage.py",
    "test_tools.py",
    "test_embeddings.py",
    "test_bytes.py",
    "test_broken_streams.py",
    "test_bad_input.py",
    "test_errors.py",
    "test_timeouts.py",
    "test_stopping.py",
)


@dataclass(slots=True)
class _Cell:
    passed: int = 0
    failed: int = 0
    exceptions: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if self.failed:
            return f"**FAILED** {self.failed} of {self.passed + self.failed + len(self.exceptions)}"
        said = [str(self.passed)] if self.passed else []
        said += [f"exception: {happens}" for happens in dict.fromkeys(self.exceptions)]
        return "; ".join(said) or "–"


@dataclass(slots=True)
class Row:
    """One promise. `line` is where it stands in its file."""

    file: str
    name: str
    line: int
    cells: dict[str, _Cell] = field(default_factory=lambda: {name: _Cell() for name in _NAMES})


class Table:
    """Collects results and says them."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Row] = {}

    def add(self, nodeid: str, line: int, *, passed: bool) -> None:
        """Note the result of one test; one that is not of a transport is no row."""
        path, _, test = nodeid.partition("::")
        name, _, case = test.partition("[")
        subject = next((known for known in _NAMES if known in case), None)
        if subject is None:
            return
        file = Path(path).name
        row = self._rows.setdefault((file, name), Row(file, name, line))
        cell = row.cells[subject]
        known = exception_of(name.removeprefix(_PREFIX), subject, case_of(case.removesuffix("]"), subject))
        if not passed:
            cell.failed += 1
        elif known is not None:
            cell.exceptions.append(known.happens)
        else:
            cell.passed += 1

    @property
    def failed(self) -> int:
        return sum(cell.failed for row in self._rows.values() for cell in row.cells.values())

    def markdown(self) -> str:
        """Return the table, group by group, and the share of promises that each transport keeps."""
        lines = [f"| Promise | {' | '.join(_NAMES)} |", f"|---|{'---|' * len(_NAMES)}"]
        group = ""
        for row in sorted(self._rows.values(), key=lambda row: (_order(row.file), row.line)):
            if row.file != group:
                group = row.file
                lines.append(f"| **{_title_of_file(group)}** |{' |' * len(_NAMES)}")
            lines.append(f"| {title_of(row.name)} | {' | '.join(str(row.cells[name]) for name in _NAMES)} |")
        kept = f"Kept: {'; '.join(map(self._share, _NAMES))}."
        return "\n".join([*lines, "", fill(kept, 118)])

    def _share(self, subject: str) -> str:
        cells = [row.cells[subject] for row in self._rows.values()]
        passed = sum(cell.passed for cell in cells)
        exceptions = sum(len(cell.exceptions) for cell in cells)
        total = passed + exceptions + sum(cell.failed for cell in cells)
        share = 100 * passed / total if total else 0.0
        said = f"{passed} of {total}" + (f"; listed exceptions: {exceptions}" if exceptions else "")
        return f"{subject} {share:.4g} % ({said})"


def title_of(name: str) -> str:
    """Return the name of a test as a sentence."""
    words = name.removeprefix(_PREFIX).replace("_", " ")
    for plain, written in (("json", "JSON"), ("http", "HTTP"), ("utf 8", "UTF-8"), ("litellm", "LiteLLM")):
        words = " ".join(words.replace(f" {plain}", f" {written}").split())
    return words[:1].upper() + words[1:]


def exceptions_table(exceptions: Sequence[KnownException] = EXCEPTIONS) -> str:
    """Return the listed exceptions as Markdown."""
    if not exceptions:
        return "None."
    lines = ["| Promise | Transport | What happens instead | Why |", "|---|---|---|---|"]
    for known in exceptions:
        cases = f" ({', '.join(known.cases)})" if known.cases else ""
        lines.append(
            f"| {title_of(known.feature)}{cases} | {', '.join(known.subjects)} | {known.happens} | {known.why} |"
        )
    return "\n".join(lines)


def _title_of_file(name: str) -> str:
    docstring = ast.get_docstring(ast.parse((_FOLDER / name).read_text(encoding="utf-8"))) or name
    return docstring.partition("\n")[0].rstrip(".")


def _order(name: str) -> int:
    return _FILES.index(name) if name in _FILES else len(_FILES)
