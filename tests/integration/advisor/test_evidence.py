"""Everything behind an answer can be shown, and its deterministic checks can be computed again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, CustomerProfile, Runtime, Settings
from guidance_agent.cli.audit_text import bundle_as_text
from guidance_agent.compliance.evidence import canonical_json, evidence_of_turn, is_sound
from guidance_agent.compliance.reviewing import ReviewDesk
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.reviews import ReviewRecords
from guidance_agent.core.schema import model_calls, turn_events, turns, verdicts
from guidance_agent.core.transcript import text_hash
from guidance_agent.errors import UnknownTurnError
from guidance_agent.testing import scripted_simulator
from tests.integration.advisor.scripted_judge import judging

STEER = "If I were you, I would take the whole pot out now."
ANSWER = f"You can leave the pot invested.\n\n{STEER}\n\nThe annual allowance is £60,000."


class Earlier(SystemClock):
    """A clock of another day."""

    def __init__(self, day: datetime) -> None:
        self._behind = datetime.now(UTC) - day

    def now(self) -> datetime:
        return datetime.now(UTC) - self._behind

    def today(self) -> Any:
        return self.now().date()


async def answered(runtime: Runtime, customer: CustomerProfile, *, judged: bool = True) -> str:
    """Have a question answered, and judged by the runtime's own validator; return the turn's id."""
    async with AdvisorAgent(runtime=runtime) as advisor, advisor.consult(customer) as turn:
        async for _ in turn:
            pass
    if judged:
        async with judging(runtime, runtime.validator) as dispatcher:
            assert (await dispatcher.drain()).judged == 1
    return turn.turn_id


async def bundle_of(runtime: Runtime, turn_id: str) -> dict[str, Any]:
    return await evidence_of_turn(runtime.database, runtime.knowledge, turn_id)


@pytest.fixture
def flagging(settings: Settings) -> Settings:
    """Settings whose gate shows everything, so that the rules have something to say of what was delivered."""
    actions = {"advice_boundary": "flag", "figure_amount": "flag", "figure_year": "flag"}
    return settings.model_copy(update={"gate": settings.gate.model_copy(update={"actions": actions})})


async def test_a_bundle_holds_everything_behind_the_answer(runtime: Runtime, janet: CustomerProfile) -> None:
    turn_id = await answered(runtime, janet)
    bundle = await bundle_of(runtime, turn_id)
    assert bundle["question"] == janet.presenting_question
    assert bundle["customer"]["id"] == janet.customer_id
    assert bundle["customer"]["profile"]["age"] == janet.age
    row = await runtime.records.turn(turn_id)
    assert row is not None
    delivered = (await runtime.records.text(turn_id))[: row["delivered_length"]]
    answer = bundle["answer"]
    assert (answer["text"], answer["text_hash"], answer["text_hash_matches"]) == (
        delivered,
        text_hash(delivered),
        True,
    )
    assert "".join(piece["text"] for piece in answer["released"]) == delivered
    assert all(piece["at"].endswith("+00:00") for piece in answer["released"])
    assert [call["operation"] for call in bundle["calls"]] == ["reasoning", "guidance", "judge"]
    for call in bundle["calls"]:
        assert call["cost_usd"] > 0
        assert call["cache_outcome"]
        assert call["cache_parts"]
    assert bundle["cost"]["total_usd"] == pytest.approx(sum(call["cost_usd"] for call in bundle["calls"]))
    assert bundle["versions"]["gate"] == runtime.gates.policy_version
    assert bundle["versions"]["judging"] == runtime.validator.policy_version
    assert None not in bundle["versions"].values()
    assert bundle["retrieved"]["facts"]
    assert all(fact["statement"] and fact["source"] for fact in bundle["retrieved"]["facts"])
    assert [entry["type"] for entry in bundle["journal"]][-1] == "judged"
    (verdict,) = bundle["verdicts"]
    assert len(verdict["verdict"]["checks"]) >= 9
    assert is_sound(bundle)


async def test_the_same_records_give_the_same_bytes_and_they_are_json(runtime: Runtime, janet: CustomerProfile) -> None:
    turn_id = await answered(runtime, janet)
    first, second = [canonical_json(await bundle_of(runtime, turn_id)) for _ in range(2)]
    assert first == second
    assert canonical_json(json.loads(first)) == first


async def test_what_was_withheld_stands_in_the_bundle_and_not_in_the_answer(
    settings: Settings, janet: CustomerProfile, tmp_path: Path
) -> None:
    with scripted_simulator(text=ANSWER, data_dir=tmp_path / "s", database_url=settings.database_url) as scripted:
        async with Runtime(scripted.settings.model_copy(update={"background": False})) as runtime:
            bundle = await bundle_of(runtime, await answered(runtime, janet, judged=False))
    assert STEER not in bundle["answer"]["text"]
    withheld = [action for action in bundle["gate_actions"] if action["action"] == "withheld"]
    (words,) = [action["withheld_text"].strip() for action in withheld]
    # Where the gate began to hold the sentence is its own business.
    assert len(words) > 20
    assert STEER.endswith(words)
    assert words not in bundle["answer"]["text"]
    assert withheld[0]["findings"]
    assert withheld[0]["policy_version"] == bundle["versions"]["gate"]
    text = bundle_as_text(bundle)
    assert f"Withheld: {words}" in text
    assert "None yet." in text


@pytest.fixture
def in_last_tax_year() -> Earlier:
    return Earlier(datetime(2025, 5, 1, 12, tzinfo=UTC))


async def test_the_rules_are_applied_again_with_the_figures_of_the_day_of_the_turn(
    flagging: Settings, janet: CustomerProfile, tmp_path: Path, in_last_tax_year: Earlier
) -> None:
    text = f"{STEER} The full new State Pension is £230.25 a week."
    with scripted_simulator(text=text, data_dir=tmp_path / "s", database_url=flagging.database_url) as scripted:
        changes = {"background": False, "gate": flagging.gate}
        async with Runtime(scripted.settings.model_copy(update=changes), clock=in_last_tax_year) as runtime:
            bundle = await bundle_of(runtime, await answered(runtime, janet))
    assert bundle["answer"]["text"] == text
    found = bundle["deterministic"]
    assert (found["outcome"], found["day"]) == ("identical", "2025-05-01")
    assert found["recorded"] == found["computed"] == bundle["verdicts"][0]["verdict"]["rules"]
    breaches = [each for each in found["recorded"]["result"]["findings"] if each["score"] > 0]
    # £230.25 was the amount of that year; the rules of a later day would object to it.
    assert {each["check"] for each in breaches} == {"advice_boundary"}
    for each in breaches:
        assert text[each["start"] : each["end"]] == each["cue"]


async def change(runtime: Runtime, statement: sa.Update) -> None:
    await runtime.database.transaction(lambda connection: connection.execute(statement))


async def change_record(runtime: Runtime, turn_id: str, **values: Any) -> None:
    stored = await runtime.verdicts.verdict(turn_id)
    assert stored is not None
    changed = {**stored.verdict, "rules": {**stored.verdict["rules"], **values}}
    await change(runtime, sa.update(verdicts).where(verdicts.c.turn_id == turn_id).values(verdict=changed))


async def test_a_record_that_was_changed_does_not_agree_any_more(runtime: Runtime, janet: CustomerProfile) -> None:
    turn_id = await answered(runtime, janet)
    found = (await bundle_of(runtime, turn_id))["deterministic"]
    assert found["outcome"] == "identical"
    await change_record(runtime, turn_id, result={**found["recorded"]["result"], "decision": "stop"})
    bundle = await bundle_of(runtime, turn_id)
    assert bundle["deterministic"]["outcome"] == "different"
    assert bundle["deterministic"]["computed"] == found["recorded"]
    assert not is_sound(bundle)
    assert "is NOT the recorded" in bundle_as_text(bundle)


async def test_another_version_of_the_rules_is_said_instead_of_compared(
    runtime: Runtime, janet: CustomerProfile
) -> None:
    turn_id = await answered(runtime, janet)
    await change_record(runtime, turn_id, version="of-another-package")
    bundle = await bundle_of(runtime, turn_id)
    found = bundle["deterministic"]
    assert (found["outcome"], found["computed"]) == ("other_version", None)
    assert found["recorded"]["version"] != found["installed_version"]
    assert is_sound(bundle)


async def test_a_text_that_was_changed_is_seen(runtime: Runtime, janet: CustomerProfile) -> None:
    turn_id = await answered(runtime, janet, judged=False)
    first = sa.select(sa.func.min(turn_events.c.sequence)).where(
        turn_events.c.turn_id == turn_id, turn_events.c.text.is_not(None)
    )
    of_first = sa.and_(turn_events.c.turn_id == turn_id, turn_events.c.sequence == first.scalar_subquery())
    await change(runtime, sa.update(turn_events).where(of_first).values(text="Something else."))
    bundle = await bundle_of(runtime, turn_id)
    assert bundle["answer"]["text_hash_matches"] is False
    assert not is_sound(bundle)


async def test_an_answer_without_a_verdict_says_so(runtime: Runtime, janet: CustomerProfile) -> None:
    bundle = await bundle_of(runtime, await answered(runtime, janet, judged=False))
    assert bundle["turn"]["judgement"] == "pending"
    assert bundle["verdicts"] == []
    found = bundle["deterministic"]
    assert (found["outcome"], found["recorded"]) == ("not_recorded", None)
    assert found["computed"]["day"] == runtime.clock.today().isoformat()
    assert is_sound(bundle)


async def test_an_unknown_price_is_no_total(runtime: Runtime, janet: CustomerProfile) -> None:
    turn_id = await answered(runtime, janet)
    free = sa.update(model_calls).where(model_calls.c.turn_id == turn_id, model_calls.c.operation == "reasoning")
    await change(runtime, free.values(cost_usd=None))
    bundle = await bundle_of(runtime, turn_id)
    cost = bundle["cost"]
    assert (cost["total_usd"], cost["calls_without_price"]) == (None, 1)
    assert cost["known_usd"] > 0
    assert "Total cost: unknown, 1 of 3 calls" in bundle_as_text(bundle)


async def test_corrections_and_decisions_of_people_stand_in_the_bundle(
    flagging: Settings, janet: CustomerProfile, tmp_path: Path
) -> None:
    with scripted_simulator(text=ANSWER, data_dir=tmp_path / "s", database_url=flagging.database_url) as scripted:
        changes = {"background": False, "gate": flagging.gate}
        async with Runtime(scripted.settings.model_copy(update=changes)) as runtime:
            turn_id = await answered(runtime, janet)
            desk = ReviewDesk(ReviewRecords(runtime.database, runtime.clock))
            await desk.decide(turn_id, "uphold", reason="It steers.", reviewer="A. Patel")
            bundle = await bundle_of(runtime, turn_id)
    assert STEER in bundle["answer"]["text"]
    assert [action["action"] for action in bundle["gate_actions"]][:1] == ["flagged"]
    assert bundle["corrections"]
    assert [row["purpose"] for row in bundle["verdicts"]] == ["live", "review"]
    (review,) = bundle["reviews"]
    assert (review["decision"], review["decided_by"], review["reason"]) == ("uphold", "A. Patel", "It steers.")
    assert bundle["deterministic"]["outcome"] == "identical"
    text = bundle_as_text(bundle)
    for told in ("NOT PASSED", "A. Patel", "It steers.", "To be read as:", "advice boundary: fail"):
        assert told in text


async def test_the_history_is_that_of_the_time_of_the_turn(runtime: Runtime, janet: CustomerProfile) -> None:
    async with AdvisorAgent(runtime=runtime) as advisor:
        ids = []
        for question in ("What is drawdown?", "And the tax?"):
            asking = janet.model_copy(update={"presenting_question": question})
            async with advisor.consult(asking, consultation_id="k", use_reasoning=False) as turn:
                async for _ in turn:
                    pass
            ids.append(turn.turn_id)
    first, second = [await bundle_of(runtime, turn_id) for turn_id in ids]
    assert first["conversation"] == []
    assert [entry["content"] for entry in second["conversation"]] == ["What is drawdown?", first["answer"]["text"]]


async def test_commands_to_a_terminal_are_shown_and_not_sent(runtime: Runtime, janet: CustomerProfile) -> None:
    turn_id = await answered(runtime, janet, judged=False)
    await change(runtime, sa.update(turns).where(turns.c.id == turn_id).values(question="Red \x1b[31m?"))
    assert "\x1b" not in bundle_as_text(await bundle_of(runtime, turn_id))


async def test_an_unknown_turn_is_an_error_that_names_it(runtime: Runtime) -> None:
    for turn_id in ("turn_unknown", "", "x" * 300, "nul\x00"):
        with pytest.raises(UnknownTurnError, match="There is no turn"):
            await bundle_of(runtime, turn_id)


def test_times_of_one_day_are_compared_in_the_clock_of_the_test(in_last_tax_year: Earlier) -> None:
    assert in_last_tax_year.today().isoformat() == "2025-05-01"
    assert in_last_tax_year.now() - datetime(2025, 5, 1, 12, tzinfo=UTC) < timedelta(minutes=5)
