"""The page tells what the suite has, and the suite notices what it is there to notice."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from guidance_agent.llm.transports import litellm
from tests.conformance.__main__ import PAGE, ROOT, between
from tests.conformance.exceptions import EXCEPTIONS
from tests.conformance.expecting import Expect
from tests.conformance.subjects import SUBJECTS
from tests.conformance.table import Table, exceptions_table

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


def test_an_exception_that_has_gone_or_happens_otherwise_is_noticed() -> None:
    known = EXCEPTIONS[0]
    [name, *_] = known.instead
    node = SimpleNamespace(originalname=f"test_{known.feature}", callspec=SimpleNamespace(id=known.subjects[0]))
    subject = next(subject for subject in SUBJECTS if str(subject) == known.subjects[0])
    request: Any = SimpleNamespace(node=node)
    with pytest.raises(AssertionError, match="has gone"):
        Expect(request, subject)(SimpleNamespace(**{name: "promised"}), **{name: "promised"})
    with pytest.raises(AssertionError, match="another way"):
        Expect(request, subject)(SimpleNamespace(**{name: "neither"}), **{name: "promised"})
    as_listed = Expect(request, subject)
    as_listed(SimpleNamespace(**known.instead), **{name: "promised"})
    assert as_listed.asserted


def test_a_broken_promise_stands_in_the_table() -> None:
    table = Table()
    place = "tests/conformance/test_answers.py::test_text_is_what_the_provider_sent"
    for case, passed in (("plain", True), ("emoji", False)):
        table.add(f"{place}[native-openai-{case}]", 1, passed=passed)
    assert table.failed == 1
    assert "| Text is what the provider sent | – | **FAILED** 1 of 2 | – | – |" in table.markdown()
    assert "native-openai 50 % (1 of 2)" in table.markdown()
