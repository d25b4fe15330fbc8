"""A day's report, over batches: counts by the program, words by a model, each consultation read once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa

from guidance_agent import Runtime
from guidance_agent.core.batch_processing import BatchProcessor
from guidance_agent.core.insight_counts import DayCounts, VerdictRate
from guidance_agent.core.schema import batch_items, rule_releases, rules, turns
from guidance_agent.learning.insights import InsightRounds
from guidance_agent.provider_simulator import Fault, ProviderSimulator
from tests.integration.learning.remembering import FAST, work_through
from tests.integration.learning.reporting import (
    DAY,
    add_consultation,
    codes,
    day_says,
    insights,
    note_says,
    notes,
    reports,
)


def at(hour: int, *, day: int = 20) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


@pytest.fixture
def work(runtime: Runtime) -> InsightRounds:
    return insights(runtime)


@pytest_asyncio.fixture
async def batches(runtime: Runtime, work: InsightRounds) -> AsyncIterator[BatchProcessor]:
    async with BatchProcessor(runtime.database, runtime.gateway, kinds=work.kinds, options=FAST) as processor:
        yield processor


async def wait(batches: BatchProcessor) -> None:
    for status in await batches.list():
        await batches.wait(status.job_key, timeout=20)


async def items(runtime: Runtime) -> list[Any]:
    query = sa.select(batch_items.c.custom_id, batch_items.c.request).order_by(batch_items.c.custom_id)
    return await runtime.database.run(lambda connection: list(connection.execute(query)))


async def test_a_day_is_counted_by_the_program_and_put_into_words_with_its_consultations_as_evidence(
    runtime: Runtime, work: InsightRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_consultation(runtime, "c1", ended=[at(9), at(10)])
    await add_consultation(runtime, "c2", judgement="failed", question="That is right, isn't it?")
    await add_consultation(runtime, "c3", judgement="pending", state="failed", question="Is it taxed?")
    note_says(simulator, contains="That is right", cause="agreed_with_customer", cause_words="It praised the plan.")
    note_says(simulator, contains="Is it taxed", topics=["tax"], misunderstandings=[])
    note_says(simulator)
    assert await work.open_new(limit=10) == 3
    named = await codes(work)
    assert await work.advance(batches) == 3
    day_says(
        simulator,
        topics=[{"topic": "tax", "words": "Tax on cash worried people.", "evidence": [named["c1"], named["c3"]]}],
        misunderstandings=[
            {"topic": "tax", "words": "The tax-free share is taken for a yearly one.", "evidence": [named["c2"]]}
        ],
        causes=[{"cause": "agreed_with_customer", "words": "Replies praised plans.", "evidence": [named["c2"]]}],
    )
    await wait(batches)
    await work_through(work, batches)
    report = await work.records.latest(DAY)
    assert report is not None
    assert (report.outcome, report.revision, report.refused, report.simulated) == ("written", 1, 0, True)
    counts = DayCounts.model_validate(report.counts)
    assert (counts.consultations, counts.turns, counts.simulated_turns, counts.read) == (3, 4, 4, 3)
    assert counts.states == {"completed": 3, "failed": 1}
    assert counts.judgements == {"passed": 2, "failed": 1, "pending": 1}
    assert counts.failed_checks == {"advice_boundary": 1}
    assert counts.errors == {"ProviderTimeoutError": 1}
    assert counts.gate_actions == {"flagged": {"advice_boundary": 1}}
    assert counts.topics == {"tax": 3, "taking_money": 2}
    assert counts.causes == {"agreed_with_customer": 1}
    words = report.words
    assert words is not None
    assert words["summary"] == "Many asked about cash."
    assert words["topics"][0]["evidence"] == ["c1", "c3"]
    assert words["causes"][0]["evidence"] == words["misunderstandings"][0]["evidence"] == ["c2"]
    assert (report.model, (report.cost_usd or 0) > 0) == (runtime.validator.model, True)


async def test_no_personal_data_leaves(
    runtime: Runtime, work: InsightRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_consultation(
        runtime,
        "c1",
        question="I am Winnie, my number is QQ 12 34 56 C and my son is called Gareth. Is £38,214 taxed?",
        text="Thank you, Winnie. Gareth or ottoline can call with you. Your number QQ 12 34 56 C stays private.",
    )
    note_says(simulator)
    day_says(simulator)
    await work_through(work, batches)
    sent = json.dumps([row.request for row in await items(runtime)])
    assert "Is £40,000 taxed?" in json.loads(sent)[1]["messages"][-1]["content"]
    for personal in ("Winnie", "Gareth", "ottoline", "12 34 56", "38,214", "customer-c1"):
        assert personal not in sent


async def test_two_runs_at_once_and_a_third_later_read_each_consultation_once(
    runtime: Runtime, work: InsightRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    for name in ("c1", "c2", "c3"):
        await add_consultation(runtime, name)
    note_says(simulator, times=None)
    day_says(simulator, times=None)
    await asyncio.gather(work_through(work, batches), work_through(insights(runtime), batches))
    await work_through(insights(runtime), batches)
    assert len(await items(runtime)) == 4
    assert [row.outcome for row in await reports(runtime)] == ["written"]


async def test_a_late_consultation_makes_a_new_revision_and_reads_nothing_twice(
    runtime: Runtime, work: InsightRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_consultation(runtime, "c1")
    note_says(simulator, times=None)
    day_says(simulator, times=None)
    await work_through(work, batches)
    await add_consultation(runtime, "c2", ended=[at(23)])
    await work_through(work, batches)
    await work_through(work, batches)
    made = await reports(runtime)
    assert [(row.revision, row.outcome, row.counts["consultations"]) for row in made] == [
        (1, "written", 1),
        (2, "written", 2),
    ]
    assert len(await notes(runtime)) == 2
    latest = await work.records.latest(DAY)
    assert latest is not None
    assert latest.revision == 2


async def test_a_report_that_is_overtaken_while_it_is_made_gives_way(
    runtime: Runtime, work: InsightRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_consultation(runtime, "c1", judgement="pending")
    note_says(simulator, times=None)
    day_says(simulator, times=None)
    await work.open_new(limit=10)
    await work.advance(batches)
    change = sa.update(turns).where(turns.c.id == "c1-0").values(judgement="passed")
    await runtime.database.transaction(lambda connection: connection.execute(change))
    await work_through(work, batches)
    made = await reports(runtime)
    assert [(row.revision, row.outcome) for row in made] == [(1, "superseded"), (2, "written")]
    assert len(await notes(runtime)) == 1


async def test_a_consultation_belongs_to_each_uk_day_on_which_a_turn_of_it_ended(
    runtime: Runtime, work: InsightRounds
) -> None:
    """In summer the day in the United Kingdom begins an hour before the day in UTC."""
    summer = [datetime(2026, 7, 14, 22, 30, tzinfo=UTC), datetime(2026, 7, 14, 23, 30, tzinfo=UTC)]
    await add_consultation(runtime, "c1", ended=summer)
    await add_consultation(runtime, "c2", ended=[at(9)], state="streaming", judgement=None)
    await add_consultation(runtime, "c3", ended=[at(1, day=21)])
    assert await insights(runtime, days=200).open_new(limit=10) == 2
    assert [(row.day, row.turn_ids) for row in await notes(runtime)] == [
        ("2026-07-14", ["c1-0"]),
        ("2026-07-15", ["c1-1"]),
    ]


async def test_days_without_consultations_have_no_report_and_ask_nobody(
    runtime: Runtime, work: InsightRounds, batches: BatchProcessor
) -> None:
    await work_through(work, batches)
    assert await reports(runtime) == []
    assert await batches.list() == []


async def test_simulated_consultations_are_left_out_where_real_ones_are_reported(runtime: Runtime) -> None:
    await add_consultation(runtime, "c1")
    assert await insights(runtime, include_simulated=False).open_new(limit=10) == 0
    await add_consultation(runtime, "c2", simulated=False)
    assert await insights(runtime, include_simulated=False).open_new(limit=10) == 1
    assert [row.consultation_id for row in await notes(runtime)] == ["c2"]


async def test_a_limit_opens_notes_in_several_runs_and_the_report_waits_for_all(
    runtime: Runtime, work: InsightRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    for name in ("c1", "c2", "c3"):
        await add_consultation(runtime, name)
    note_says(simulator, times=None)
    day_says(simulator, times=None)
    assert await work.open_new(limit=2) == 2
    await work.advance(batches)
    await wait(batches)
    assert await work.settle() == 0
    assert await work.open_new(limit=2) == 1
    await work_through(work, batches)
    (report,) = await reports(runtime)
    assert report.counts["read"] == 3


async def test_statements_with_figures_do_not_stand_and_are_counted(
    runtime: Runtime, work: InsightRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_consultation(runtime, "c1")
    note_says(simulator)
    await work.open_new(limit=10)
    evidence = list((await codes(work)).values())
    await work.advance(batches)
    day_says(
        simulator,
        summary="Three of four customers asked about cash.",
        topics=[
            {"topic": "tax", "words": "Half of them asked about tax.", "evidence": evidence},
            {"topic": "taking_money", "words": "Some wanted cash for repairs.", "evidence": evidence},
        ],
    )
    await wait(batches)
    await work_through(work, batches)
    (report,) = await reports(runtime)
    assert (report.outcome, report.refused, report.words["summary"]) == ("written", 2, "")
    assert [each["topic"] for each in report.words["topics"]] == ["taking_money"]


UNUSABLE: list[dict[str, Any]] = [
    {"topics": [{"topic": "tax", "words": "Tax worried people.", "evidence": ["abcdef"]}]},
    {"topics": [{"topic": "no_such_topic", "words": "Tax worried people.", "evidence": ["abcdef"]}]},
    {"causes": [{"cause": "other", "words": "Replies praised.", "evidence": []}]},
]


@pytest.mark.parametrize("words", UNUSABLE, ids=str)
async def test_words_that_rest_on_nothing_are_none_and_the_report_is_counts_alone(
    words: dict[str, Any],
    runtime: Runtime,
    work: InsightRounds,
    batches: BatchProcessor,
    simulator: ProviderSimulator,
) -> None:
    await add_consultation(runtime, "c1")
    note_says(simulator)
    day_says(simulator, times=None, **words)
    await work_through(work, batches)
    (report,) = await reports(runtime)
    assert (report.outcome, report.words, report.attempts) == ("counts_only", None, 2)
    assert report.counts["topics"] == {"tax": 1, "taking_money": 1}
    assert report.reason


async def test_a_consultation_that_cannot_be_read_is_counted_and_the_report_is_made_without_it(
    runtime: Runtime, work: InsightRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_consultation(runtime, "c1", question="Is it taxed?")
    simulator.faults.add(
        Fault.model_validate({"kind": "script", "script": {"text": "No JSON."}, "contains": "Note this", "times": None})
    )
    await work_through(work, batches)
    (report,) = await reports(runtime)
    assert (report.outcome, report.counts["consultations"], report.counts["read"]) == ("counts_only", 1, 0)
    assert (await work.standing()).ended == {"consultations failed": 1, "reports counts_only": 1}


async def test_verdicts_are_compared_with_and_without_each_rule_by_the_version_that_answers_were_written_with(
    runtime: Runtime, work: InsightRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    def write(connection: sa.Connection) -> None:
        for name in ("r1", "r2"):
            connection.execute(
                sa.insert(rules).values(
                    id=name, text=f"Rule {name}.", confidence=0.8, status="released", evidence=[], created_at=at(1),
                    simulated=True,
                )
            )  # fmt: skip
        for version, ids in ((1, ["r1"]), (2, ["r1", "r2"])):
            row = {"version": version, "released_at": at(version), "rule_ids": ids, "note": ""}
            connection.execute(sa.insert(rule_releases).values(**row))

    await runtime.database.transaction(write)
    told = [(0, "failed"), (0, "failed"), (0, "passed"), (1, "failed"), (1, "passed"), (2, "passed"), (2, "pending")]
    for number, (version, judgement) in enumerate(told):
        moment = [at(9, day=20 if version == 2 else 10)]
        await add_consultation(runtime, f"c{number}", judgement=judgement, rules_version=version, ended=moment)
    await add_consultation(runtime, "old", ended=[datetime(2026, 9, 1, tzinfo=UTC)], rules_version=2)
    note_says(simulator, times=None)
    day_says(simulator, times=None)
    await work_through(work, batches)
    (report,) = await reports(runtime)
    counts = DayCounts.model_validate(report.counts)
    assert [(each.version, each.rate) for each in counts.versions] == [
        (0, VerdictRate(passed=1, failed=2)),
        (1, VerdictRate(passed=1, failed=1)),
        (2, VerdictRate(passed=1, failed=0)),
    ]
    assert [(each.rule_id, each.with_rule, each.without_rule) for each in counts.rules] == [
        ("r1", VerdictRate(passed=2, failed=1), VerdictRate(passed=1, failed=2)),
        ("r2", VerdictRate(passed=1, failed=0), VerdictRate(passed=2, failed=3)),
    ]
