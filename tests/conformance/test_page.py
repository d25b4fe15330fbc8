"""The page tells what the suite has."""

from __future__ import annotations

import re
import subprocess
import sys

from guidance_agent.llm.transports import litellm
from tests.conformance.__main__ import PAGE, ROOT, between
from tests.conformance.exceptions import EXCEPTIONS
from tests.conformance.subjects import SUBJECTS
from tests.conformance.table import exceptions_table

_SPLITS_ROW = re.compile(r"^\| (\w+) \| [^|]+ \| ([\d,]+) \| [\d,]+ \| (\d+) \|", re.MULTILINE)


def test_the_page_lists_the_promises_cases_and_exceptions_of_the_suite() -> None:
    command = [sys.executable, "-m", "tests.conformance", "--collect"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert found.returncode == 0, found.stdout + found.stderr
    page = PAGE.read_text(encoding="utf-8")
    table = between(page, "table")
    assert table.count("\n") > 50
    # Without the diff: it would be longer than a reader's patience.
    assert table in found.stdout, "run `python -m tests.conformance --write`"
    assert between(page, "exceptions") == exceptions_table()


def test_the_chunk_invariance_on_the_page_was_measured_with_thousands_of_splits() -> None:
    rows = _SPLITS_ROW.findall(between(PAGE.read_text(encoding="utf-8"), "splits"))
    for wire in ("anthropic", "openai"):
        assert sum(int(splits.replace(",", "")) for name, splits, _ in rows if name == wire) >= 10_000
    assert {different for *_, different in rows} == {"0"}


def test_every_exception_is_a_known_difference_of_its_transport() -> None:
    names = {str(subject) for subject in SUBJECTS}
    for known in EXCEPTIONS:
        assert set(known.subjects) <= names
        assert all(name.startswith("litellm-") for name in known.subjects)
        assert f"\n{known.difference}. " in (litellm.__doc__ or "")
