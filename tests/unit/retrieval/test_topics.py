"""Some subjects must never be missed: their cues bring their key facts."""

from __future__ import annotations

from datetime import date

import pytest

from guidance_agent.core.types import CustomerProfile
from guidance_agent.knowledge.loader import load_knowledge
from guidance_agent.retrieval.topics import load_topics

DAY = date(2026, 11, 21)


def names(text: str, profile: CustomerProfile | None = None, day: date = DAY) -> list[str]:
    return [topic.name for topic in load_topics().route(text, day=day, profile=profile)]


def test_every_fact_unknown_and_figure_that_a_topic_brings_exists_and_is_for_customers() -> None:
    knowledge, router = load_knowledge(), load_topics()
    for fact_id in router.fact_ids:
        assert knowledge.get(fact_id).audience == "customer"
    assert set(router.core_figures) <= {figure.id for figure in knowledge.figures}
    assert router.unknown_ids <= {unknown.id for unknown in knowledge.unknowns}


@pytest.mark.parametrize(
    "trigger",
    ["final salary", "defined benefit", "CETV", "transfer value", "GAR", "GMP", "NHS", "police", "teachers"],
)
def test_each_trigger_of_safeguarded_benefits_is_a_cue(trigger: str) -> None:
    assert "safeguarded" in names(f"I have something from the {trigger}, what now?")


@pytest.mark.parametrize(
    "trigger", ["a cold call", "unlock it early", "a guaranteed return", "£1,000 cashback", "fees upfront"]
)
def test_each_scam_trigger_is_a_cue(trigger: str) -> None:
    assert "scam" in names(f"They mentioned {trigger}.")


@pytest.mark.parametrize("text", ["Can my kids inherit it?", "What about inheritance tax?", "when I'm gone"])
def test_inheritance_is_recognised_in_ordinary_words(text: str) -> None:
    assert "inheritance" in names(text)


@pytest.mark.parametrize(
    "text",
    [
        "I was born in May 1973, when can I take my pension?",
        "born on 3 June 1975 and want to get at it",
        "I'm 50 and would like to draw some",
        "I’m nearly 52, can I take it?",
    ],
)
def test_a_year_of_birth_or_an_age_raises_the_minimum_age(text: str) -> None:
    assert "minimum_age_by_birth" in names(text)


@pytest.mark.parametrize("text", ["I'm 50 and curious", "I'm 67 and take £200 a month", "take 50% of it"])
def test_an_age_alone_or_a_higher_one_does_not(text: str) -> None:
    assert "minimum_age_by_birth" not in names(text)


def test_an_age_is_read_on_the_day_it_is_said() -> None:
    assert "minimum_age_by_birth" in names("I'm 54, can I take it?", day=date(2027, 1, 1))
    assert "minimum_age_by_birth" not in names("I'm 54, can I take it?", day=date(2023, 1, 1))


def test_the_profile_counts_as_said() -> None:
    profile = CustomerProfile.parse({"customer_id": "c", "age": 53, "pensions": [{"kind": "db"}]})
    assert {"minimum_age_by_birth", "safeguarded_profile"} <= set(names("Can I move it and take cash?", profile))
    assert names("What is a dividend?", profile) == []


def test_the_most_urgent_topic_comes_first() -> None:
    assert names("He rang me out of the blue about my CETV and I can't go on")[:3] == ["crisis", "scam", "safeguarded"]


def test_a_question_without_a_cue_raises_nothing() -> None:
    assert names("How do I change my address?") == []
