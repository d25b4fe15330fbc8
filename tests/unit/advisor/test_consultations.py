"""Which consultation a turn belongs to, decided on real records."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent.advisor.consultations import (
    ID_LIMIT,
    OpenConsultation,
    find_consultation,
    profile_changes,
    recorded_history,
)
from guidance_agent.advisor.conversation import Entry, read_conversation
from guidance_agent.advisor.prompts import TurnContext, build_guidance_prompt
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.records import Records
from guidance_agent.core.schema import consultations, turn_events, turns
from guidance_agent.core.transcript import extend_transcript, text_hash, transcript_hash
from guidance_agent.core.types import AdvisorProfile, CustomerProfile
from guidance_agent.errors import HistoryMismatch, TurnInProgressError, UnknownConsultationError

JANET = CustomerProfile.parse({"customer_id": "janet", "first_name": "Janet", "age": 56})
DEV = CustomerProfile.parse({"customer_id": "dev", "first_name": "Dev", "age": 61})


def said(*texts: str) -> tuple[Entry, ...]:
    return tuple(Entry("advisor" if index % 2 else "customer", text) for index, text in enumerate(texts))


class Desk:
    """Asks and records turns the way the journal leaves them behind."""

    def __init__(self, database: Database, clock: SystemClock) -> None:
        self.database = database
        self.clock = clock
        self.records = Records(database, clock)
        self._turns = 0

    async def find(
        self, *history: str, customer: CustomerProfile = JANET, consultation_id: str | None = None
    ) -> OpenConsultation:
        return await find_consultation(self.records, self.clock, customer, said(*history), consultation_id)

    async def history(self, consultation_id: str) -> list[tuple[str, str]]:
        return [
            (entry["role"], entry["content"]) for entry in await recorded_history(self.records, JANET, consultation_id)
        ]

    async def answer(
        self,
        consultation: OpenConsultation,
        question: str,
        *pieces: str,
        customer: CustomerProfile = JANET,
        state: str = "completed",
        delivered: int | None = None,
        opened_at: datetime | None = None,
        lease_until: float = 0.0,
    ) -> str:
        self._turns += 1
        turn_id, now, text = f"turn-{self._turns}", self.clock.now(), "".join(pieces)
        length = len(text) if delivered is None else delivered
        live = state == "streaming"
        with self.database.engine.begin() as connection:
            if consultation.is_new:
                row = consultation.row(customer, advisor_id="default", clock=self.clock, simulated=True)
                connection.execute(sa.insert(consultations), {**row, "opened_at": opened_at or row["opened_at"]})
            turn: dict[str, Any] = {
                "id": turn_id,
                "consultation_id": consultation.id,
                "ordinal": consultation.ordinal,
                "state": state,
                "question": question,
                "model": "m",
                "simulated": True,
                "owner": "me",
                "lease_until": lease_until,
                "started_at": now,
                "last_sequence": len(pieces),
                "delivered_length": None if live else length,
                "context": {},
            }
            connection.execute(sa.insert(turns), turn)
            events: list[dict[str, Any]] = [
                {"turn_id": turn_id, "sequence": 0, "type": "turn_started", "text": None},
                *(
                    {"turn_id": turn_id, "sequence": number, "type": "text_delta", "text": piece}
                    for number, piece in enumerate(pieces, start=1)
                ),
            ]
            connection.execute(sa.insert(turn_events), [{**e, "payload": {}, "created_at": now} for e in events])
            values: dict[str, Any] = {"turn_count": consultation.ordinal}
            if not live and length:
                asked = extend_transcript(consultation.transcript, "customer", text_hash(question))
                values["transcript_hash"] = extend_transcript(asked, "advisor", text_hash(text[:length]))
            connection.execute(sa.update(consultations).where(consultations.c.id == consultation.id).values(**values))
        return turn_id


@pytest.fixture
def desk(database: Database, clock: SystemClock) -> Desk:
    return Desk(database, clock)


async def test_a_first_question_opens_a_consultation_with_the_profile_of_the_moment(desk: Desk) -> None:
    found = await desk.find()
    assert found.is_new
    assert found.ordinal == 1
    assert found.id.startswith("cons_")
    assert found.profile == JANET.prompt_values()
    assert found.transcript == transcript_hash([])
    assert (await desk.find()).id != found.id


async def test_a_history_that_equals_the_record_continues_it_with_the_profile_it_opened_with(desk: Desk) -> None:
    opened = await desk.find()
    await desk.answer(opened, "Q1?", "A", "1")
    older = JANET.model_copy(update={"age": 57})
    second = await desk.find("Q1?", "A1", customer=older)
    assert (second.id, second.ordinal, second.is_new) == (opened.id, 2, False)
    assert second.profile == JANET.prompt_values()
    assert second.transcript == transcript_hash(said("Q1?", "A1"))
    await desk.answer(second, "Q2?", "A2")
    third = await desk.find("Q1?", "A1", "Q2?", "A2", customer=older)
    assert (third.id, third.ordinal) == (opened.id, 3)


@pytest.mark.parametrize(
    "history",
    [
        (),
        ("Q1?", "A1 "),
        (" Q1?", "A1"),
        ("Q1?", "A"),
        ("A1", "Q1?"),
        ("Q1?A", "1"),
        ("Q1?", "A1", "Q2?", "A2"),
        ("Q0?", "A0", "Q1?", "A1"),
        ("q1?", "A1"),
    ],
)
async def test_a_history_that_only_resembles_the_record_opens_another(desk: Desk, history: tuple[str, ...]) -> None:
    opened = await desk.find()
    await desk.answer(opened, "Q1?", "A1")
    found = await desk.find(*history)
    assert found.is_new
    assert found.id != opened.id
    assert found.transcript == transcript_hash(said(*history))


async def test_another_customer_with_the_same_words_is_never_joined(desk: Desk) -> None:
    opened = await desk.find()
    await desk.answer(opened, "Q1?", "A1")
    found = await desk.find("Q1?", "A1", customer=DEV)
    assert found.is_new
    assert found.profile == DEV.prompt_values()


@pytest.mark.parametrize("outcome", ["passed", "failed"])
async def test_a_consultation_with_an_outcome_is_continued_only_by_its_id(desk: Desk, outcome: Any) -> None:
    opened = await desk.find()
    await desk.answer(opened, "Q1?", "A1")
    await desk.records.set_outcome(opened.id, outcome, reason="r", source="test")
    assert (await desk.find("Q1?", "A1")).is_new
    found = await desk.find("Q1?", "A1", consultation_id=opened.id)
    assert (found.id, found.ordinal, found.is_new) == (opened.id, 2, False)


async def test_of_two_that_equal_the_history_the_newer_is_continued(desk: Desk) -> None:
    older, newer, oldest = await desk.find(), await desk.find(), await desk.find()
    now = datetime(2026, 11, 21, tzinfo=UTC)
    for consultation, age in ((older, 5), (newer, 1), (oldest, 9)):
        await desk.answer(consultation, "Q1?", "A1", opened_at=now - timedelta(days=age))
    assert (await desk.find("Q1?", "A1")).id == newer.id


async def test_while_a_turn_streams_its_consultation_is_not_joined_and_says_so_by_its_id(desk: Desk) -> None:
    opened = await desk.find(consultation_id="case-7")
    await desk.answer(opened, "Q1?", "A", state="streaming")
    assert (await desk.find()).is_new
    with pytest.raises(TurnInProgressError, match="'case-7'"):
        await desk.find(consultation_id="case-7")


async def test_an_unknown_id_opens_a_consultation_with_that_id(desk: Desk) -> None:
    opened = await desk.find(consultation_id="case-7")
    assert (opened.id, opened.is_new, opened.ordinal) == ("case-7", True, 1)
    await desk.answer(opened, "Q1?", "A1")
    found = await desk.find("Q1?", "A1", consultation_id="case-7")
    assert (found.id, found.is_new, found.ordinal) == ("case-7", False, 2)


@pytest.mark.parametrize("history", [(), ("Q1?", "another"), ("Q1?", "A1", "Q2?", "A2"), ("A1", "Q1?")])
async def test_a_history_that_contradicts_the_record_of_a_given_id_is_refused(
    desk: Desk, history: tuple[str, ...]
) -> None:
    await desk.answer(await desk.find(consultation_id="case-7"), "Q1?", "A1")
    with pytest.raises(HistoryMismatch, match="'case-7'"):
        await desk.find(*history, consultation_id="case-7")


@pytest.mark.parametrize("history", [("Q1?", "A1"), ()])
async def test_the_id_of_another_customer_s_consultation_is_unknown(desk: Desk, history: tuple[str, ...]) -> None:
    await desk.answer(await desk.find(consultation_id="case-7"), "Q1?", "A1")
    with pytest.raises(UnknownConsultationError) as caught:
        await desk.find(*history, customer=DEV, consultation_id="case-7")
    assert "janet" not in str(caught.value)
    assert "Q1?" not in str(caught.value)


@pytest.mark.parametrize("bad", ["", "x" * (ID_LIMIT + 1), "a\nb", "a\x00b", "a\ud800", "a\u202eb"])
async def test_what_the_records_cannot_hold_as_an_id_is_refused(desk: Desk, bad: str) -> None:
    with pytest.raises(UnknownConsultationError, match="cannot be the id"):
        await desk.find(consultation_id=bad)
    with pytest.raises(UnknownConsultationError, match="cannot be the id"):
        await recorded_history(desk.records, JANET, bad)


@pytest.mark.parametrize("good", ["x" * ID_LIMIT, "case 7/ä", "日本", "7"])
async def test_any_printable_id_of_up_to_the_limit_will_do(desk: Desk, good: str) -> None:
    await desk.answer(await desk.find(consultation_id=good), "Q1?", "A1")
    assert (await desk.find("Q1?", "A1", consultation_id=good)).ordinal == 2
    assert consultations.c.id.type.length == ID_LIMIT  # type: ignore[attr-defined]


async def test_after_an_early_close_the_conversation_holds_what_was_delivered(desk: Desk) -> None:
    opened = await desk.find()
    await desk.answer(opened, "Q1?", "One 😀 ", "two ", "three", state="closed_early", delivered=9)
    assert await desk.history(opened.id) == [("customer", "Q1?"), ("advisor", "One 😀 two")]
    assert (await desk.find("Q1?", "One 😀 two")).id == opened.id
    assert (await desk.find("Q1?", "One 😀 two three")).is_new


@pytest.mark.parametrize("state", ["completed", "failed", "process_died"])
async def test_turns_that_ended_otherwise_are_recorded_whole(desk: Desk, state: str) -> None:
    opened = await desk.find()
    await desk.answer(opened, "Q1?", "One ", "two", state=state)
    assert await desk.history(opened.id) == [("customer", "Q1?"), ("advisor", "One two")]


async def test_a_turn_that_delivered_nothing_leaves_no_entry_but_keeps_its_number(desk: Desk) -> None:
    opened = await desk.find()
    await desk.answer(opened, "Q1?", state="failed")
    again = await desk.find()
    assert (again.id, again.ordinal) == (opened.id, 2)
    await desk.answer(again, "Q1?", "never seen", state="closed_early", delivered=0)
    third = await desk.find()
    assert (third.id, third.ordinal) == (opened.id, 3)
    await desk.answer(third, "Q1?", "A1")
    assert await desk.history(opened.id) == [("customer", "Q1?"), ("advisor", "A1")]


async def test_a_turn_that_still_streams_is_not_part_of_the_recorded_history(desk: Desk) -> None:
    opened = await desk.find()
    await desk.answer(opened, "Q1?", "A1")
    await desk.answer(await desk.find("Q1?", "A1"), "Q2?", "A2", state="streaming")
    assert await desk.history(opened.id) == [("customer", "Q1?"), ("advisor", "A1")]


async def test_turns_are_recalled_in_their_order_and_apart_from_other_consultations(desk: Desk) -> None:
    opened = await desk.find()
    await desk.answer(opened, "Q1?", "A1")
    await desk.answer(await desk.find(customer=DEV), "other?", "other", customer=DEV)
    await desk.answer(await desk.find("Q1?", "A1"), "Q1?", "A1")
    assert await desk.history(opened.id) == [("customer", "Q1?"), ("advisor", "A1")] * 2
    assert await desk.history("never-opened") == []


async def test_a_turn_of_a_dead_process_is_continued_from_what_the_journal_holds(desk: Desk) -> None:
    opened = await desk.find()
    turn_id = await desk.answer(opened, "Q1?", "One ", "two", state="streaming", lease_until=1.0)
    assert await desk.records.close_dead_turns(lambda *_: {"type": "failed"}) == (turn_id,)
    assert await desk.history(opened.id) == [("customer", "Q1?"), ("advisor", "One two")]
    assert (await desk.find("Q1?", "One two")).id == opened.id


async def test_a_consultation_that_began_elsewhere_is_continued_by_the_whole_history_or_by_the_record(
    desk: Desk,
) -> None:
    opened = await desk.find("Q0?", "A0", consultation_id="case-7")
    await desk.answer(opened, "Q1?", "A1")
    recorded = [content for _, content in await desk.history("case-7")]
    assert recorded == ["Q1?", "A1"]
    whole = await desk.find("Q0?", "A0", "Q1?", "A1", consultation_id="case-7")
    by_record = await desk.find(*recorded, consultation_id="case-7")
    assert whole == by_record
    with pytest.raises(HistoryMismatch):
        await desk.find("Q0?", "A0", consultation_id="case-7")


async def test_whatever_was_delivered_can_be_asked_about_again(desk: Desk) -> None:
    opened = await desk.find(consultation_id="case-7")
    await desk.answer(opened, "Q1?", "\n", "\nYou could", state="closed_early", delivered=2)
    history = await recorded_history(desk.records, JANET, "case-7")
    conversation = read_conversation(JANET.model_copy(update={"presenting_question": "Q2?"}), history)
    found = await find_consultation(desk.records, desk.clock, JANET, conversation.history, "case-7")
    assert found.ordinal == 2
    context = TurnContext(today="2026-11-21", tax_year="2026/27")
    prompt = build_guidance_prompt(AdvisorProfile.default(), found.profile, conversation, context)
    assert all(message.content.strip() for message in prompt)


async def test_the_row_of_a_new_consultation_can_be_read_back(desk: Desk) -> None:
    opened = await desk.find()
    await desk.answer(opened, "Q1?", "A1")
    record = await desk.records.consultation(opened.id)
    assert record is not None
    assert (record.customer_id, record.outcome, record.turn_count, record.streaming) == ("janet", "open", 1, False)
    assert record.profile == JANET.prompt_values()


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[str, ...]:
    opened, current = (CustomerProfile.parse({"customer_id": "c", **values}) for values in (before, after))
    return profile_changes(opened.prompt_values(), current.prompt_values())


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ({}, {}, ()),
        ({"age": 56}, {"age": 57}, ("age: now 57, was 56",)),
        ({}, {"partner": "married"}, ("partner: now married, was not known",)),
        ({"partner": "married"}, {}, ("partner: now not known, was married",)),
        ({"debts_gbp": 100}, {"debts_gbp": 0}, ("debts gbp: now 0.0, was 100.0",)),
        ({}, {"debts_gbp": 0}, ("debts gbp: now 0.0, was not known",)),
        (
            {"vulnerabilities": ["a"]},
            {"vulnerabilities": ["a", "é"]},
            ('vulnerabilities: now ["a", "é"], was ["a"]',),
        ),
        ({"vulnerabilities": ["a"]}, {}, ('vulnerabilities: now not known, was ["a"]',)),
        (
            {"notes": "x", "age": 1},
            {"age": 2, "notes": "y", "first_name": "Jo"},
            ("first name: now Jo, was not known", "age: now 2, was 1", "notes: now y, was x"),
        ),
        (
            {"pensions": [{"kind": "dc"}]},
            {"pensions": [{"kind": "dc", "value_gbp": 5}]},
            ('pensions: now [{"kind": "dc", "value_gbp": 5.0}], was [{"kind": "dc"}]',),
        ),
    ],
)
def test_each_value_that_changed_gets_one_line_in_the_profile_s_order(
    before: dict[str, object], after: dict[str, object], lines: tuple[str, ...]
) -> None:
    assert changes(before, after) == lines


@pytest.mark.parametrize(
    ("before", "after"), [({"goals": ""}, {}), ({}, {"goals": ""}), ({"debts_gbp": "-0"}, {"debts_gbp": 0})]
)
def test_what_is_not_known_either_way_has_not_changed(before: dict[str, object], after: dict[str, object]) -> None:
    assert changes(before, after) == ()


def test_an_id_or_question_is_never_a_change() -> None:
    asked = {"customer_id": "a", "presenting_question": "Q1?"}
    assert changes(asked, {"customer_id": "b", "presenting_question": "Q2?"}) == ()


def test_values_read_back_in_another_order_have_not_changed() -> None:
    opened = {"pensions": [{"value_gbp": 5.0, "kind": "dc"}], "age": 5}
    assert profile_changes(opened, {"age": 5, "pensions": [{"kind": "dc", "value_gbp": 5.0}]}) == ()
