"""Sums before an answer: chosen by a fast model, worked out here, shown to the author, kept with the turn."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, Completed, CustomerProfile, Event, Runtime
from guidance_agent.advisor.calculations import calculator_tools, may_need_sums
from guidance_agent.core.schema import turns
from guidance_agent.knowledge.loader import load_knowledge
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from guidance_agent.provider_simulator.scripts import ScriptedCall
from tests.integration.advisor.wiring import FAST, author_requests, bare, wired_settings

JANET = CustomerProfile(customer_id="c-1", first_name="Janet", age=58)
QUESTION = "How much tax would I pay on a lump sum of £40,000 with other income of £20,000?"
LUMP_SUM = {"lump_sum": "40000", "other_income": "20000", "year": "2026/27"}


@pytest_asyncio.fixture
async def counting(simulator: ProviderSimulator, wire: str, tmp_path: Path) -> AsyncIterator[Runtime]:
    settings = wired_settings(simulator, wire, tmp_path / "data", calculations={"enabled": True, "deadline": 2.0})
    async with Runtime(settings) as runtime:
        yield runtime


def fast_model_calls(simulator: ProviderSimulator, wire: str, *calls: tuple[str, dict[str, Any]]) -> None:
    first, *rest = calls
    more = tuple(ScriptedCall(tool=name, arguments=arguments) for name, arguments in rest)
    script = Script(tool=first[0], arguments=first[1], more_calls=more)
    simulator.faults.add(Fault(kind="script", model=bare(FAST[wire]), script=script))


async def answered(runtime: Runtime, question: str = QUESTION, **options: Any) -> list[Event]:
    async with AdvisorAgent(runtime=runtime) as advisor:
        history = [{"role": "customer", "content": question}]
        async with advisor.consult(JANET, history, use_reasoning=False, **options) as turn:
            return [event async for event in turn]


async def kept(runtime: Runtime) -> Any:
    query = sa.select(turns.c.calculations)
    return await runtime.database.run(lambda connection: connection.execute(query).scalar_one())


async def test_what_the_model_asks_for_is_worked_out_and_shown_to_the_author(
    counting: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    fast_model_calls(
        simulator, wire, ("tax_on_lump_sum", LUMP_SUM), ("state_pension_age", {"date_of_birth": "1968-03-01"})
    )
    events = await answered(counting)
    ended = events[-1]
    assert isinstance(ended, Completed)
    (asked,) = author_requests(simulator, wire)
    last = json.dumps(asked.body["messages"][-1], ensure_ascii=False)
    assert "tax_on_lump_sum" in last and "6000.00" in last and "2035-03-01" in last
    first, second = await kept(counting)
    assert json.loads(first["result"])["tax"] == "6000.00"
    assert second["name"] == "state_pension_age"


async def test_a_call_that_cannot_be_worked_out_is_left_out_and_the_rest_is_kept(
    counting: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    wrong = ("tax_on_lump_sum", {**LUMP_SUM, "year": "1999/00"})
    fast_model_calls(simulator, wire, wrong, ("no_such_tool", {}), ("tax_free_part", {"pot": "100000"}))
    await answered(counting)
    assert [line["name"] for line in await kept(counting)] == ["tax_free_part"]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "script", "script": {"text": "There is nothing to work out."}},
        {"kind": "status", "status": 500},
        {"kind": "stall"},
    ],
    ids=["calls nothing", "fails", "is slow"],
)
async def test_without_a_call_the_answer_comes_without_sums(
    counting: Runtime, simulator: ProviderSimulator, wire: str, fault: dict[str, Any]
) -> None:
    simulator.faults.add(Fault.model_validate({"model": bare(FAST[wire]), **fault}))
    assert isinstance((await answered(counting))[-1], Completed)
    assert await kept(counting) is None
    assert "<calculations>" not in json.dumps(author_requests(simulator, wire)[0].body)


async def test_a_question_without_a_figure_and_an_advisor_without_calculators_ask_nobody(
    counting: Runtime, simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    await answered(counting, "What is an annuity?")
    async with Runtime(wired_settings(simulator, wire, tmp_path / "data")) as without:
        await answered(without)
    assert all(record.model != bare(FAST[wire]) for record in simulator.requests)


async def test_the_tools_of_a_day_are_made_once() -> None:
    knowledge, day = load_knowledge(), date(2026, 11, 21)
    first = await calculator_tools(knowledge, day)
    assert await calculator_tools(knowledge, day) is first
    assert await calculator_tools(knowledge, date(2026, 11, 22)) is not first


def test_a_figure_or_the_question_for_one_is_what_may_need_a_sum() -> None:
    assert may_need_sums("Is £30,000 a lot?") and may_need_sums("When can I get my State Pension?")
    assert may_need_sums("how MUCH tax is it") and not may_need_sums("What is an annuity?")
