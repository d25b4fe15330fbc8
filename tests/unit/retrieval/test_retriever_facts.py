"""Facts for a question: by date, by topic, by similarity, and never what is not for customers."""

from __future__ import annotations

import asyncio
import threading
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.core.types import CustomerProfile
from guidance_agent.knowledge.loader import load_knowledge
from guidance_agent.retrieval import lexical
from guidance_agent.retrieval.retriever import RetrievalLimits, Retrieved, Retriever

DAY = date(2026, 11, 21)
TAX = "Is there inheritance tax on my pension, and what is the allowance?"


async def found(question: str, **options: object) -> Retrieved:
    return await Retriever(load_knowledge()).retrieve(question, **({"customer_id": "c", "day": DAY} | options))  # type: ignore[arg-type]


def ids(result: Retrieved) -> list[str]:
    return [item.fact.id for item in result.facts]


@given(st.text(max_size=200), st.dates(min_value=date(2020, 1, 1), max_value=date(2032, 1, 1)))
async def test_whatever_is_asked_on_whatever_day_facts_hold_and_are_for_customers(question: str, day: date) -> None:
    result = await Retriever(load_knowledge()).retrieve(question, customer_id="c", day=day)
    assert len(result.facts) <= 8
    assert len(set(ids(result))) == len(result.facts)
    for item in result.facts:
        assert item.fact.audience == "customer"
        assert item.fact.holds_on(day) == (item.status == "current")
        assert not item.fact.expired_on(day)
    assert all(figure.holds_on(day) for figure in result.figures)


async def test_an_upcoming_fact_is_found_as_upcoming_and_becomes_current_on_its_day() -> None:
    retriever = Retriever(load_knowledge())
    status = {}
    for day in (date(2027, 4, 5), date(2027, 4, 6)):
        result = await retriever.retrieve(TAX, customer_id="c", day=day)
        status[day] = {item.fact.id: item.status for item in result.facts}["TX-13"]
    assert list(status.values()) == ["upcoming", "current"]


async def test_an_expired_fact_is_not_found_even_where_its_topic_wants_it() -> None:
    question = "At what age can I take my pension, at 55?"
    assert "TX-11" in ids(await found(question, day=date(2028, 4, 5)))
    assert "TX-11" not in ids(await found(question, day=date(2028, 4, 6)))


async def test_the_facts_of_a_raised_topic_come_first_whatever_else_is_asked() -> None:
    result = await found(
        "What is the annual allowance? By the way, a man rang me out of the blue about my NHS pension."
    )
    assert result.topics[:2] == ("scam", "safeguarded")
    assert ids(result)[:2] == ["SC-02", "DB-05"]
    assert {"SC-01", "DB-03", "DB-10"} <= set(ids(result))


async def test_the_limit_holds_when_many_topics_are_raised() -> None:
    question = "Cold call about my CETV, inheritance tax, universal credit, bailiffs, at 55, in one go"
    for limit in (0, 1, 3, 8):
        assert len((await found(question, limits=RetrievalLimits(facts=limit))).facts) == limit


async def test_what_was_said_before_keeps_its_topic_alive() -> None:
    follow_up = "And how long would that take?"
    assert "DB-05" not in ids(await found(follow_up))
    assert "DB-05" in ids(await found(follow_up, history_texts=["I have a CETV of £200,000."]))
    faded = ["I have a CETV of £200,000.", "Thank you.", "I see."]
    assert "DB-05" not in ids(await found(follow_up, history_texts=faded))


async def test_the_profile_raises_a_topic() -> None:
    profile = CustomerProfile.parse({"customer_id": "c", "pensions": [{"kind": "gar"}]})
    question = "Can I put it on an app?"
    assert "DB-11" not in ids(await found(question))
    assert "DB-11" in ids(await found(question, profile=profile))


async def test_core_figures_are_always_there_and_others_come_with_their_facts() -> None:
    plain = {figure.id for figure in (await found("Hello")).figures}
    assert {"new-state-pension", "personal-allowance", "annual-allowance"} <= plain
    asked = {figure.id for figure in (await found("How much is pension credit for a couple?")).figures}
    assert "pension-credit-couple" in asked - plain


async def test_what_is_not_known_is_said_when_it_is_asked() -> None:
    result = await found("Will the Budget change tax-free cash, and what will the state pension be next April?")
    assert [unknown.id for unknown in result.unknowns][:2] == ["UN-05", "UN-01"]
    assert (await found("How do I change my address?")).unknowns == ()


async def test_a_greeting_finds_no_facts() -> None:
    assert (await found("Hello, how are you?")).facts == ()


async def test_the_end_of_a_very_long_question_counts() -> None:
    result = await found("I worked in a shop. " * 40_000 + "Now I have been offered a CETV.")
    assert "DB-05" in ids(result)


async def test_facts_need_no_embedding_model_so_nothing_is_degraded() -> None:
    result = await found(TAX)
    assert result.degraded is None
    assert result.question is not None
    assert result.question.model == "offline/hashed-terms-1"


async def test_the_index_is_built_once_and_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    builders: list[bool] = []
    build = Retriever._build_offline

    def noted(self: Retriever) -> object:
        builders.append(threading.current_thread() is threading.main_thread())
        return build(self)

    monkeypatch.setattr(Retriever, "_build_offline", noted)
    lexical.load_lexicon.cache_clear()
    retriever = Retriever(load_knowledge())
    await asyncio.gather(retriever.warm(), *(retriever.retrieve(TAX, customer_id="c", day=DAY) for _ in range(5)))
    assert builders == [False]


async def test_the_same_question_finds_the_same_facts_in_the_same_order() -> None:
    assert (await found(TAX)).facts == (await found(TAX)).facts


def test_the_version_of_the_knowledge_is_told() -> None:
    assert Retriever(load_knowledge()).knowledge_version == load_knowledge().version
