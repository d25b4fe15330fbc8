"""Cases of answers that passed: anonymous, each lesson once, and found for similar questions."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from guidance_agent import Runtime
from guidance_agent.core.schema import cases, consultations, turn_lessons
from guidance_agent.learning.cases import CaseBase
from tests.integration.learning.failing import add_turn

QUESTION = "What is the difference between drawdown and an annuity?"
ANSWER = (
    "An annuity pays an income for life that is fixed when it is bought. Drawdown leaves the money invested, so the "
    "income can change and the money can run out."
)


@pytest.fixture
def base(runtime: Runtime) -> CaseBase:
    return CaseBase(runtime.database, runtime.clock, runtime.rules_base().embedder)


async def passed(
    runtime: Runtime, name: str = "t1", *, question: str = QUESTION, text: str = ANSWER, simulated: bool = False
) -> str:
    return await add_turn(runtime, name, question=question, text=text, judgement="passed", simulated=simulated)


async def texts(runtime: Runtime) -> list[str]:
    query = sa.select(cases.c.text).order_by(cases.c.turn_id)
    return await runtime.database.run(lambda connection: list(connection.execute(query).scalars()))


async def test_a_passed_answer_becomes_a_case_that_similar_questions_find(runtime: Runtime, base: CaseBase) -> None:
    await passed(runtime)
    assert await base.add_new() == 1
    assert await base.add_new() == 0
    assert await texts(runtime) == [f"Asked: {QUESTION} Answered: {ANSWER}"]
    found = await runtime.retriever.retrieve(
        "How do drawdown and annuities differ?", customer_id="other", day=runtime.clock.today()
    )
    assert [case.text for case in found.cases] == await texts(runtime)


async def test_of_nearly_the_same_cases_the_first_stays(runtime: Runtime, base: CaseBase) -> None:
    await passed(runtime, "t1")
    await passed(runtime, "t2", question="So what is the difference between drawdown and an annuity?")
    await passed(
        runtime, "t3", question="How is a lump sum taxed?", text="Part of it is free of tax. The rest is taxed."
    )
    assert await base.add_new() == 2
    assert [text[:20] for text in await texts(runtime)] == ["Asked: What is the d", "Asked: How is a lump"]
    query = sa.select(sa.func.count()).select_from(turn_lessons)
    assert await runtime.database.run(lambda connection: connection.execute(query).scalar_one()) == 3


async def test_processes_that_write_at_once_write_each_case_once(runtime: Runtime, base: CaseBase) -> None:
    for number in range(3):
        await passed(runtime, f"t{number}")
    assert sum(await asyncio.gather(*(base.add_new() for _ in range(3)))) == 1
    assert len(await texts(runtime)) == 1


@pytest.mark.only_on("sqlite")
async def test_sentences_with_anything_personal_are_left_out(runtime: Runtime, base: CaseBase) -> None:
    await passed(
        runtime,
        question=f"I am Winnie from 4 Mill Lane. Ring me on 07700 900123. I have £87,345 saved. {QUESTION}",
        text=f"Good that you ask, Winnie. {ANSWER} Your £87,345 is above a limit of £10,000.",
    )
    assert await base.add_new() == 1
    assert await texts(runtime) == [f"Asked: {QUESTION} Answered: {ANSWER}"]


@pytest.mark.only_on("sqlite")
async def test_people_of_whom_only_the_profile_tells_are_left_out(runtime: Runtime, base: CaseBase) -> None:
    await passed(
        runtime,
        question=f"Could ottoline and I choose different things? {QUESTION}",
        text=f"{ANSWER} Ottoline can choose for herself. A partner can be named with the scheme.",
    )
    assert await base.add_new() == 1
    assert await texts(runtime) == [
        f"Asked: {QUESTION} Answered: {ANSWER} A partner can be named with the scheme.",
    ]


PRIVATE = [
    "I was diagnosed with cancer in spring, so what is the difference between drawdown and an annuity?",
    "My wife died last year. What is the difference between drawdown and an annuity?",
    "We are getting divorced. What is the difference between drawdown and an annuity?",
    "Winnie here, 07700 900123?",
]


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("question", PRIVATE)
async def test_a_question_about_ones_own_life_becomes_no_case(question: str, runtime: Runtime, base: CaseBase) -> None:
    await passed(runtime, question=question)
    assert await base.add_new() == 0
    assert await texts(runtime) == []


async def test_only_what_stands_passed_becomes_a_case(runtime: Runtime, base: CaseBase) -> None:
    await passed(runtime, "simulated", simulated=True)
    await add_turn(runtime, "failed", question=QUESTION, text=ANSWER)
    await add_turn(runtime, "pending", question=QUESTION, text=ANSWER, judgement="pending")
    await passed(runtime, "regretted")
    regretted = sa.update(consultations).where(consultations.c.id == "c-regretted").values(outcome="failed")
    await runtime.database.transaction(lambda connection: connection.execute(regretted))
    assert await base.add_new() == 0


async def test_where_all_is_simulated_what_the_simulator_answered_becomes_a_case_of_its_own(
    runtime: Runtime, base: CaseBase
) -> None:
    await passed(runtime, simulated=True)
    await runtime.reflection_rounds().open_new(limit=5)
    query = sa.select(cases.c.simulated)
    assert await runtime.database.run(lambda connection: list(connection.execute(query).scalars())) == [True]
    found = await runtime.retriever.retrieve(QUESTION, customer_id="other", day=runtime.clock.today())
    assert found.cases == ()
