"""The facts that ship with the package: complete, dated, and with sources that can be shown."""

from __future__ import annotations

import re
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from guidance_agent import knowledge as package
from guidance_agent.knowledge import load_knowledge

TODAY = date(2026, 11, 21)
FOLDER = Path(package.__file__).parent
# Id prefix -> how many facts it has, numbered from 01 without a gap.
NUMBERED = {
    "AB": 21, "AO": 10, "CD": 6, "CF": 7, "DB": 13, "RD": 11, "SC": 13,
    "SP": 19, "ST": 12, "TL": 6, "TS": 8, "TX": 24, "UC": 7, "VU": 10,
}  # fmt: skip
DROPPED: dict[str, str] = {}
CONFIRMED_ON_AN_OFFICIAL_PAGE = {"VU-07"}
HOUSE_RULES = {"RD-11", "CF-07", "UC-05", "UC-06", "SP-07", "DB-13", "SC-13", "TS-08", "TL-06"}
NOT_YET_IN_FORCE = {
    "SP-17": date(2027, 1, 1),
    "TX-12": date(2028, 4, 6),
    "TX-13": date(2027, 4, 6),
    "TX-14": date(2027, 4, 6),
    "TX-15": date(2027, 4, 6),
    "TX-21": date(2029, 4, 6),
    "ST-06": date(2044, 4, 6),
    "ST-09": date(2027, 4, 6),
}
OFFICIAL_HOSTS = {
    "arxiv.org",
    "commonslibrary.parliament.uk",
    "embedded-journeys.moneyhelper.org.uk",
    "handbook.fca.org.uk",
    "www.fca.org.uk",
    "www.financial-ombudsman.org.uk",
    "www.fscs.org.uk",
    "www.gov.uk",
    "www.handbook.fca.org.uk",
    "www.legislation.gov.uk",
    "www.moneyhelper.org.uk",
    "www.samaritans.org",
    "www.thepensionsregulator.gov.uk",
}
WEAK_HOSTS = [
    "aegisfinancial", "advisoryai", "aldryn", "azurewebsites", "bbcnewswire", "bishbashdosh", "clarqo", "dokumen",
    "glancesalarieslans", "hlas.co.uk", "k-hosting", "lrh.co.uk", "metengage", "pages.dev", "particle.news",
    "pdfslide", "tpr-prdsitecore", "warsawnews", "wuhld",
]  # fmt: skip


def test_every_numbered_fact_is_present_or_dropped_with_a_reason() -> None:
    expected = {f"{prefix}-{number:02d}" for prefix, count in NUMBERED.items() for number in range(1, count + 1)}
    present = {fact.id for fact in load_knowledge().facts}

    assert present | DROPPED.keys() == expected
    assert not present & DROPPED.keys()
    assert len(present) == 167


def test_dates_and_confidence_agree_with_the_collected_facts() -> None:
    collected = Path(__file__).parents[4] / "shared" / "facts" / "fca_facts.yaml"
    if not collected.is_file():
        pytest.skip("the collected facts are not part of the package")
    knowledge = load_knowledge()

    for entry in yaml.safe_load(collected.read_text(encoding="utf-8")):
        fact = knowledge.get(entry["id"])
        assert fact.topic == entry["topic"]
        assert fact.effective_from.isoformat() == entry["effective_from"], fact.id
        assert (fact.valid_until and fact.valid_until.isoformat()) == entry["valid_until"], fact.id
        if fact.id not in CONFIRMED_ON_AN_OFFICIAL_PAGE:
            assert fact.confidence.partition("_")[0] == entry["confidence"], fact.id


def test_confidence_counts_say_how_firm_the_facts_are() -> None:
    counts = Counter(fact.confidence for fact in load_knowledge().facts)

    assert counts == {"verified_primary": 49, "verified_secondary": 72, "memory": 46}


def test_house_rules_are_marked_and_never_citable() -> None:
    house = {fact.id for fact in load_knowledge().facts if fact.audience == "house"}

    assert house == HOUSE_RULES
    assert not any(load_knowledge().get(fact_id).citable for fact_id in house)


def test_what_is_only_from_memory_is_never_citable() -> None:
    assert not [fact.id for fact in load_knowledge().facts if fact.confidence == "memory" and fact.citable]


def test_an_expired_award_limit_is_not_returned() -> None:
    assert load_knowledge().get("SP-11").expired_on(TODAY)
    assert "SP-11" not in {dated.fact.id for dated in load_knowledge().valid_on(TODAY)}


def test_announced_changes_are_upcoming_and_keep_their_start_date() -> None:
    upcoming = {
        dated.fact.id: dated.fact.effective_from
        for dated in load_knowledge().valid_on(TODAY)
        if dated.status == "upcoming"
    }

    assert upcoming == NOT_YET_IN_FORCE


@pytest.mark.parametrize(("day", "present"), [(date(2026, 12, 31), True), (date(2027, 1, 1), False)])
def test_consultations_of_2026_lapse_at_the_end_of_the_year(day: date, present: bool) -> None:
    found = {dated.fact.id for dated in load_knowledge().valid_on(day)}

    assert ({"AB-17", "AO-10"} <= found) is present
    assert bool({"AB-17", "AO-10"} & found) is present


@pytest.mark.parametrize(("day", "present"), [(date(2027, 4, 5), True), (date(2027, 4, 6), False)])
def test_figures_of_one_tax_year_lapse_with_it(day: date, present: bool) -> None:
    found = {dated.fact.id for dated in load_knowledge().valid_on(day)}
    yearly = {"TX-02", "TX-03", "TX-05", "TX-22", "ST-01", "ST-02", "ST-08", "ST-10"}

    assert bool(yearly & found) is present
    assert (yearly <= found) is present


def test_web_addresses_are_official_pages_only() -> None:
    hosts = {urlsplit(fact.url).hostname for fact in load_knowledge().facts if fact.url}

    assert hosts <= OFFICIAL_HOSTS


def test_no_weak_web_address_is_left_in_any_file() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.yaml")}

    assert [(name, host) for name, text in texts.items() for host in WEAK_HOSTS if host in text] == []


def test_sources_hold_a_reference_and_no_copied_address() -> None:
    assert [fact.id for fact in load_knowledge().facts if "http" in fact.source] == []


def test_statements_can_be_read_without_their_topic() -> None:
    opening = re.compile(r"(It|They|This|These|That|The rule|The rules) (is|are|can|cannot|may|applies|apply)\b")

    assert [fact.id for fact in load_knowledge().facts if opening.match(fact.statement)] == []


def test_statements_for_customers_hold_no_instruction_to_the_service() -> None:
    instruction = re.compile(r"hard-cod|confirm before|quote none|do not describe|say that it|recheck|\bagent\b", re.I)
    shown = [fact for fact in load_knowledge().facts if fact.audience == "customer"]

    assert len(shown) == 100
    assert [fact.id for fact in shown if instruction.search(fact.statement)] == []


def test_unconfirmed_telephone_numbers_are_not_stated() -> None:
    numbers = ["0800 138 3944", "0800 111 6768", "0800 917 4487"]
    text = " ".join(fact.statement for fact in load_knowledge().facts)

    assert [number for number in numbers if number in text] == []


def test_figures_rest_on_a_fact_that_states_the_number() -> None:
    knowledge = load_knowledge()
    spoken = {"carry-forward-years": "three", "small-pot-count": "three", "cetv-guarantee-months": "three",
              "ni-gap-years": "six", "deferral-weeks": "nine", "ombudsman-wait-weeks": "eight",
              "ombudsman-months": "six", "fscs-temporary-months": "six",
              "fscs-temporary-high-balance": "£1.4 million"}  # fmt: skip

    for figure in knowledge.figures:
        said = spoken.get(figure.id, f"{figure.value:,}")
        assert re.search(rf"(?<![\d.,]){re.escape(said)}(?![\d]|[.,]\d)", knowledge.get(figure.fact).statement), (
            figure.id
        )


@pytest.mark.parametrize(
    ("figure_id", "day", "value"),
    [
        ("new-state-pension", date(2026, 4, 6), "241.30"),
        ("new-state-pension-2025-26", date(2026, 4, 5), "230.25"),
        ("minimum-pension-age", date(2028, 4, 5), "55"),
        ("minimum-pension-age-from-2028", date(2028, 4, 6), "57"),
        ("money-purchase-annual-allowance", TODAY, "10000"),
    ],
)
def test_well_known_figures_apply_on_their_days(figure_id: str, day: date, value: str) -> None:
    figures = {figure.id: figure for figure in load_knowledge().figures_on(day)}

    assert figures[figure_id].value == Decimal(value)


def test_no_two_figures_of_one_name_apply_on_the_same_day() -> None:
    days = [date(2025, 4, 6), date(2026, 4, 5), date(2026, 4, 6), TODAY, date(2027, 4, 6), date(2028, 4, 6)]

    for day in days:
        names = Counter(figure.name for figure in load_knowledge().figures_on(day))
        assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    ("figure_id", "text"),
    [
        ("new-state-pension", "£241.30 a week"),
        ("pension-credit-single", "£238.00 a week"),
        ("annual-allowance", "£60,000 a year"),
        ("lump-sum-allowance", "£268,275"),
        ("deferral-yearly", "5.8%"),
        ("iht-rate", "40%"),
        ("minimum-pension-age", "age 55"),
        ("full-qualifying-years", "35 years"),
        ("small-pot-count", "3"),
    ],
)
def test_a_figure_reads_as_words(figure_id: str, text: str) -> None:
    assert {figure.id: figure.text for figure in load_knowledge().figures}[figure_id] == text


@pytest.mark.parametrize(
    ("figure_id", "period"),
    [
        ("new-state-pension", "tax year 2026/27"),
        ("annual-allowance", "from 2023-04-06 to 2027-04-05"),
        ("lump-sum-allowance", "from 2024-04-06"),
    ],
)
def test_a_figure_says_when_it_applies(figure_id: str, period: str) -> None:
    assert {figure.id: figure.period for figure in load_knowledge().figures}[figure_id] == period


def test_what_is_not_known_sends_the_customer_to_the_source() -> None:
    unknowns = load_knowledge().unknowns

    assert len(unknowns) == 9
    assert [entry.id for entry in unknowns if "check at source" not in entry.answer] == []


def test_files_stay_short_enough_to_read() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in FOLDER.rglob("*.yaml")}

    assert len(lengths) == 16
    assert max(lengths.values()) < 500
