"""Loading: validity by day, errors that name their place, and a stable version."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from guidance_agent.errors import KnowledgeError
from guidance_agent.knowledge import Knowledge, load_knowledge, tax_year, tax_year_dates

TODAY = date(2026, 11, 21)
GOOD_FACT = """\
- id: {id}
  topic: tax_figures
  statement: The allowance is £1.
  source: A rule
  effective_from: {start}
  valid_until: {end}
  confidence: verified_primary
  audience: customer
  citable: true
"""


def fact(fact_id: str = "TX-01", start: str = "2026-04-06", end: str = "2027-04-05") -> str:
    return GOOD_FACT.format(id=fact_id, start=start, end=end)


def directory(root: Path, facts: str, **others: str) -> Path:
    (root / "facts").mkdir(parents=True)
    (root / "facts" / "tax.yaml").write_text(facts, encoding="utf-8")
    for name, text in others.items():
        (root / f"{name}.yaml").write_text(text, encoding="utf-8")
    return root


def ids_on(knowledge: Knowledge, day: date) -> dict[str, str]:
    return {dated.fact.id: dated.status for dated in knowledge.valid_on(day)}


@pytest.mark.parametrize(
    ("day", "label"),
    [
        (date(2026, 4, 5), "2025/26"),
        (date(2026, 4, 6), "2026/27"),
        (date(2026, 12, 31), "2026/27"),
        (date(2027, 1, 1), "2026/27"),
        (date(2027, 4, 5), "2026/27"),
        (date(2027, 4, 6), "2027/28"),
        (date(1999, 12, 31), "1999/00"),
    ],
)
def test_the_tax_year_changes_on_6_april(day: date, label: str) -> None:
    first, last = tax_year_dates(label)

    assert tax_year(day) == label
    assert first <= day <= last


@pytest.mark.parametrize("label", ["2026", "2026/28", "2026-27", "26/27", "2026/27 "])
def test_a_malformed_tax_year_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="tax year"):
        tax_year_dates(label)


@pytest.mark.parametrize(
    ("day", "status"),
    [
        (date(2026, 4, 5), "upcoming"),
        (date(2026, 4, 6), "current"),
        (date(2027, 4, 5), "current"),
        (date(2027, 4, 6), None),
    ],
)
def test_a_fact_is_upcoming_then_current_then_gone(tmp_path: Path, day: date, status: str | None) -> None:
    knowledge = load_knowledge(directory(tmp_path, fact()))

    assert ids_on(knowledge, day).get("TX-01") == status


def test_upcoming_facts_can_be_left_out(tmp_path: Path) -> None:
    knowledge = load_knowledge(directory(tmp_path, fact() + fact("TX-02", "2028-04-06", "null")))

    assert [dated.fact.id for dated in knowledge.valid_on(TODAY, include_upcoming=False)] == ["TX-01"]


@pytest.mark.parametrize("day", [date(2025, 4, 6), date(2026, 4, 5), date(2026, 4, 6), date(2027, 4, 5)])
def test_a_figure_of_a_tax_year_applies_from_its_first_to_its_last_day(tmp_path: Path, day: date) -> None:
    entries = "".join(
        f"- {{id: f{year[:4]}, name: Rate, value: '1.5', unit: percent, tax_year: {year}, fact: TX-01}}\n"
        for year in ("2025/26", "2026/27")
    )
    knowledge = load_knowledge(directory(tmp_path, fact(), figures=entries))

    assert [figure.tax_year for figure in knowledge.figures_on(day)] == [tax_year(day)]


def test_an_open_ended_fact_stays(tmp_path: Path) -> None:
    knowledge = load_knowledge(directory(tmp_path, fact(end="null")))

    assert ids_on(knowledge, date(2999, 1, 1)) == {"TX-01": "current"}


@pytest.mark.parametrize(
    ("facts", "others", "parts"),
    [
        (fact().replace("  topic: tax_figures\n", ""), {}, ["tax.yaml", "TX-01", "topic", "required"]),
        (fact().replace("audience: customer", "audience: anyone"), {}, ["TX-01", "audience", "anyone"]),
        (fact().replace("confidence: verified_primary", "confidence: memory"), {}, ["TX-01", "citable"]),
        (fact().replace("audience: customer", "audience: house"), {}, ["TX-01", "citable"]),
        (fact(start="2027-04-06"), {}, ["TX-01", "effective_from", "2027-04-06", "2027-04-05"]),
        (fact(start="soon"), {}, ["TX-01", "effective_from", "'soon'"]),
        (fact(start="2026-02-31"), {}, ["tax.yaml"]),
        (fact() + fact(), {}, ["tax.yaml", "TX-01", "already used"]),
        (fact() + "  colour: red\n", {}, ["TX-01", "colour"]),
        (fact() + "  citable: true\n", {}, ["tax.yaml", "citable", "twice"]),
        (fact(fact_id="'TX 01]'"), {}, ["TX 01]", "id"]),
        ("- TX-01\n", {}, ["tax.yaml", "number 1"]),
        ("id: TX-01\n", {}, ["tax.yaml", "list"]),
        ("- id: [\n", {}, ["tax.yaml", "YAML"]),
        ("", {}, ["no facts"]),
        (fact(), {"unknowns": "- {id: U-1, subject: x}\n"}, ["unknowns.yaml", "U-1", "answer"]),
        (
            fact(),
            {"figures": "- {id: f, name: n, value: '1', unit: GBP, tax_year: 2026/27, fact: ZZ-9}\n"},
            ["figures.yaml", "'f'", "fact", "ZZ-9"],
        ),
        (
            fact(),
            {"figures": "- {id: f, name: n, value: '1', unit: GBP, tax_year: 2026/29, fact: TX-01}\n"},
            ["figures.yaml", "'f'", "2026/29"],
        ),
        (
            fact(),
            {"figures": "- {id: f, name: n, value: many, unit: GBP, tax_year: 2026/27, fact: TX-01}\n"},
            ["figures.yaml", "'f'", "value", "many"],
        ),
    ],
)
def test_a_wrong_file_is_named_with_entry_and_field(
    tmp_path: Path, facts: str, others: dict[str, str], parts: list[str]
) -> None:
    with pytest.raises(KnowledgeError) as caught:
        load_knowledge(directory(tmp_path, facts, **others))

    assert [part for part in parts if part not in str(caught.value)] == []


def test_an_id_used_in_two_files_is_refused(tmp_path: Path) -> None:
    root = directory(tmp_path, fact())
    (root / "facts" / "other.yaml").write_text(fact(), encoding="utf-8")

    with pytest.raises(KnowledgeError, match=r"TX-01.*already used in"):
        load_knowledge(root)


def test_a_directory_without_facts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match=r"facts"):
        load_knowledge(tmp_path / "missing")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    root = directory(tmp_path, fact())
    (root / "facts" / "broken.yaml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(KnowledgeError, match=r"broken\.yaml"):
        load_knowledge(root)


def test_an_unknown_id_is_refused_by_name() -> None:
    with pytest.raises(KnowledgeError, match="'XX-99'"):
        load_knowledge().get("XX-99")


def test_a_directory_is_read_once_per_process(tmp_path: Path) -> None:
    root = directory(tmp_path, fact())

    assert load_knowledge(root) is load_knowledge(root)
    assert load_knowledge() is load_knowledge()


def test_the_version_does_not_depend_on_files_or_their_order(tmp_path: Path) -> None:
    one, two = fact("TX-01"), fact("TX-02")
    together = load_knowledge(directory(tmp_path / "together", one + two))
    apart = directory(tmp_path / "apart", two)
    (apart / "facts" / "zz.yaml").write_text(one, encoding="utf-8")

    assert load_knowledge(apart).version == together.version


def test_the_version_changes_with_a_statement_and_with_a_date(tmp_path: Path) -> None:
    texts = [fact(), fact().replace("£1.", "£2."), fact(end="2028-04-05")]
    roots = [directory(tmp_path / str(number), text) for number, text in enumerate(texts)]

    assert len({load_knowledge(root).version for root in roots}) == len(texts)


@pytest.mark.parametrize("seed", ["0", "12345"])
def test_the_version_does_not_depend_on_the_hash_seed(seed: str) -> None:
    code = "from guidance_agent.knowledge import load_knowledge as load; import sys; sys.stdout.write(load().version)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert run.stdout == load_knowledge().version
