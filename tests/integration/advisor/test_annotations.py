"""What is said of an answer beside its span stands in the records as soon as the verdict does, and follows it."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, CustomerProfile, Runtime
from guidance_agent.compliance.reviewing import ReviewDesk
from guidance_agent.compliance.verdict import Verdict
from guidance_agent.core.annotations import COMPLIANCE, IDENTIFIER, REVIEWED
from guidance_agent.core.reviews import ReviewRecords
from guidance_agent.core.schema import span_annotations, turns
from guidance_agent.errors import PermissionDeniedError
from tests.integration.advisor.scripted_judge import ScriptedJudge, judging, verdict_on

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACED = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "answer_span_id": SPAN}
BY: dict[str, Any] = {"reason": "She wrote about Anna's divorce.", "reviewer": "A. Patel"}


def fails(text: str) -> Verdict:
    return verdict_on(text, ("advice_boundary", 0, text.index(" ")), without_words=["signposting"])


def unreadable(text: str) -> Verdict:
    return verdict_on(text, unreadable="the answer is not JSON")


def refuses(_: str) -> Verdict:
    raise PermissionDeniedError("not for this key")


async def answered(runtime: Runtime, advisor: AdvisorAgent, customer: CustomerProfile, **traced: Any) -> str:
    """Have a question answered in a trace, and return the turn's id."""
    async with advisor.consult(customer, use_reasoning=False) as turn:
        async for _ in turn:
            pass
    ids = {"traceparent": None, "answer_span_id": None, **traced}
    change = sa.update(turns).where(turns.c.id == turn.turn_id).values(**ids)
    await runtime.database.transaction(lambda connection: connection.execute(change))
    return turn.turn_id


async def judge(runtime: Runtime, scripted: ScriptedJudge) -> None:
    async with judging(runtime, scripted) as dispatcher:
        await dispatcher.drain()


async def recorded(runtime: Runtime) -> dict[str, dict[str, Any]]:
    query = sa.select(span_annotations)
    rows = await runtime.database.run(lambda connection: connection.execute(query).mappings().all())
    return {row["name"]: dict(row) for row in rows}


async def test_a_verdict_that_passed_is_annotated_on_the_span_of_the_answer(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    turn_id = await answered(runtime, advisor, janet, **TRACED)
    await judge(runtime, ScriptedJudge())
    (row,) = (await recorded(runtime)).values()
    assert (row["turn_id"], row["trace_id"], row["span_id"]) == (turn_id, TRACE, SPAN)
    assert (row["name"], row["identifier"], row["annotator_kind"]) == (COMPLIANCE, IDENTIFIER, "LLM")
    assert (row["label"], row["score"], row["explanation"]) == ("passed", 1.0, None)
    assert (row["version"], row["attempts"], row["sent_at"], row["error"]) == (1, 0, None, None)
    verdict = await runtime.verdicts.verdict(turn_id)
    assert verdict is not None
    assert row["verdict_id"] == row["details"]["verdict_id"] == verdict.id
    assert (row["details"]["confidence"], row["details"]["turn_id"]) == (0.9, turn_id)


async def test_a_verdict_that_failed_names_the_checks_with_their_requirements(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    turn_id = await answered(runtime, advisor, janet, **TRACED)
    text = await runtime.verdicts.delivered_text(turn_id)
    assert text is not None
    await judge(runtime, ScriptedJudge(fails))
    row = (await recorded(runtime))[COMPLIANCE]
    # A judge that is sure of a failure gives no high score.
    assert (row["label"], row["score"]) == ("failed", 0.0)
    assert row["explanation"].splitlines() == [
        f"advice_boundary (high; R): because “{text.text[: text.text.index(' ')]}”",
        "signposting (high; R): because",
    ]
    assert row["details"]["failed_checks"] == ["advice_boundary", "signposting"]


async def test_an_answer_of_a_judge_that_nobody_can_read_has_no_score(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    await answered(runtime, advisor, janet, **TRACED)
    await judge(runtime, ScriptedJudge(unreadable))
    row = (await recorded(runtime))[COMPLIANCE]
    assert (row["label"], row["score"]) == ("unreadable", None)
    assert "not JSON" in row["explanation"]


async def test_a_later_verdict_replaces_that_nobody_could_judge(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    await answered(runtime, advisor, janet, **TRACED)
    await judge(runtime, ScriptedJudge(refuses))
    before = (await recorded(runtime))[COMPLIANCE]
    assert (before["label"], before["score"], before["annotator_kind"]) == ("needs review", None, "CODE")
    assert (before["verdict_id"], before["version"]) == (None, 1)
    await judge(runtime, ScriptedJudge())
    after = (await recorded(runtime))[COMPLIANCE]
    assert (after["label"], after["annotator_kind"], after["version"]) == ("passed", "LLM", 2)
    assert after["id"] == before["id"]


@pytest.mark.parametrize(
    ("decision", "compliance", "review"),
    [("approve", ("passed", 1.0), "approved"), ("uphold", ("failed", 0.0), "upheld")],
)
async def test_a_persons_decision_stands_in_both_annotations_without_name_and_reason(
    runtime: Runtime,
    advisor: AdvisorAgent,
    janet: CustomerProfile,
    decision: Any,
    compliance: tuple[str, float],
    review: str,
) -> None:
    turn_id = await answered(runtime, advisor, janet, **TRACED)
    await judge(runtime, ScriptedJudge(fails))
    await ReviewDesk(ReviewRecords(runtime.database, runtime.clock)).decide(turn_id, decision, **BY)
    found = await recorded(runtime)
    assert set(found) == {COMPLIANCE, REVIEWED}
    assert (found[COMPLIANCE]["label"], found[COMPLIANCE]["score"]) == compliance
    assert found[COMPLIANCE]["version"] == 2
    assert (found[REVIEWED]["label"], found[REVIEWED]["score"]) == (review, compliance[1])
    for row in found.values():
        assert row["annotator_kind"] == "HUMAN"
        told = f"{row['explanation']}{row['details']}"
        assert "Patel" not in told
        assert "divorce" not in told
    again: Any = "uphold" if decision == "approve" else "approve"
    await ReviewDesk(ReviewRecords(runtime.database, runtime.clock)).decide(turn_id, again, again=True, **BY)
    assert (await recorded(runtime))[REVIEWED]["version"] == 2


@pytest.mark.parametrize(
    "traced",
    [
        {},
        {"traceparent": TRACED["traceparent"]},
        {"answer_span_id": SPAN},
        {**TRACED, "traceparent": f"00-{TRACE}-b7ad6b7169203331-00"},
        {**TRACED, "traceparent": "not a traceparent"},
    ],
    ids=["untraced", "no answer span", "no trace", "not sampled", "garbled"],
)
async def test_where_no_span_will_arrive_nothing_waits_to_be_sent(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, traced: dict[str, str]
) -> None:
    turn_id = await answered(runtime, advisor, janet, **traced)
    await judge(runtime, ScriptedJudge())
    assert await runtime.verdicts.verdict(turn_id) is not None
    assert await recorded(runtime) == {}
