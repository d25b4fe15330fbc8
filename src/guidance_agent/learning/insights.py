"""The insight report by batch: what a day's consultations were about, counted by the program and worded by a model.

    open_new ──▶ a note for each consultation ──▶ batch ──▶ counted ──▶ the day's words ──▶ batch ──▶ report

Two rounds. The first reads one consultation each, redacted, and answers with labels of closed lists and a sentence here
and there. Then the program counts: consultations, turns, verdicts, checks, actions of the gate, verdicts with and
without a rule, and the labels. The second round puts the notes of the day into words, each statement with the
consultations that it rests on. A statement with a figure in it does not stand, and an answer that names a consultation
which it was not given is none; the counts beside the words are the program's.

A report that cannot be worded is a report with counts alone. `core/insight_days.py` says which consultations a day has,
`core/insight_records.py` when it gets another revision.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa

from guidance_agent.compliance.verdict import Verdict
from guidance_agent.core.batch_claims import BatchClaims
from guidance_agent.core.batch_processing import BatchProcessor, BatchRequest, BatchResult
from guidance_agent.core.batch_work import WorkStanding
from guidance_agent.core.batches.states import BatchKind
from guidance_agent.core.delivered_text import delivered_text
from guidance_agent.core.insight_counts import count_day
from guidance_agent.core.insight_records import InsightNote, InsightRecords, StoredReport
from guidance_agent.core.schema import verdicts
from guidance_agent.learning.insight_answers import (
    CauseWords,
    ConsultationNote,
    DayWords,
    MisunderstandingWords,
    TopicWords,
    may_stand,
)
from guidance_agent.learning.insight_prompts import (
    ReadConsultation,
    ReadTurn,
    codes_of,
    day_prompt,
    label_counts,
    note_prompt,
    read_answers,
    shown_notes,
)
from guidance_agent.tracing.people import people_of
from guidance_agent.tracing.redaction import Redactor

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database

__all__ = ["INSIGHT_DAY", "INSIGHT_NOTES", "LOOK_BACK_DAYS", "InsightRounds"]

INSIGHT_NOTES = "insight_notes"
INSIGHT_DAY = "insight_day"
"""The kinds of its batches."""
LOOK_BACK_DAYS = 7
"""How many days that are over are looked at for what was not reported yet."""
MOST_ATTEMPTS = 2

_NOTE_TOKENS = 4_000
_DAY_TOKENS = 8_000
_CODE = "code:"
"""How the names begin under which an item keeps which consultation a code stands for."""
_BROKEN_STATES = frozenset({"failed", "process_died"})
_Statement: TypeAlias = TopicWords | MisunderstandingWords | CauseWords
_logger = logging.getLogger("guidance_agent.learning")


class InsightRounds:
    """Makes a report on each day's consultations, by batch; a `BatchWork`.

    Args:
        database: The records.
        clock: Times and days.
        model: The model that reads and words.
        include_simulated: Whether simulated consultations count; what they led to is marked.
        days: How many days that are over are looked at.
    """

    name = "insights"

    def __init__(
        self,
        database: Database,
        clock: Clock,
        model: str,
        *,
        include_simulated: bool = False,
        days: int = LOOK_BACK_DAYS,
    ) -> None:
        self.model = model
        self.kinds: Sequence[BatchKind] = (
            BatchKind(name=INSIGHT_NOTES, operation="insights", output=ConsultationNote, apply=self._apply_note),
            BatchKind(name=INSIGHT_DAY, operation="insights", output=DayWords, apply=self._apply_day),
        )
        self.records = InsightRecords(database, clock, include_simulated=include_simulated)
        self._database = database
        self._claims = BatchClaims(database, clock)
        self._redactor = Redactor(amounts="round")
        self._include_simulated = include_simulated
        self._days = days

    async def open_new(self, *, limit: int) -> int:
        """Open reports on days that are over and notes of their consultations, at most `limit`; returns how many."""
        return await self.records.open_new(limit=limit, days=self._days)

    async def advance(self, batches: BatchProcessor) -> int:
        """Count the days whose consultations were all read, and submit what is ready; returns how many items.

        Raises:
            ConfigurationError: the model cannot be called as things are set up, or has no batch API.
        """
        await self.settle()
        notes = await self._claims.submit_ready(
            batches, INSIGHT_NOTES, self.records.ready_notes(), self._note_requests, model=self.model
        )
        days = await self._claims.submit_ready(
            batches, INSIGHT_DAY, self.records.ready_reports(), self._day_requests, model=self.model
        )
        return notes + days

    async def settle(self) -> int:
        """Count the days whose consultations were all read; returns how many days. Asks no model."""
        found = await self.records.read_through()
        for report in found:
            await self._count(report)
        return len(found)

    async def standing(self) -> WorkStanding:
        """Return how many notes and reports wait, and have ended with which outcome."""
        waiting, ended = await self.records.standing()
        return WorkStanding(waiting=waiting, ended=ended)

    async def _count(self, report: StoredReport) -> None:
        notes = await self.records.notes(report.note_ids)
        turn_ids = [turn_id for note in notes for turn_id in note.turn_ids]
        counted = await self._database.run(
            lambda connection: count_day(connection, report.day, turn_ids, include_simulated=self._include_simulated)
        )
        read = await asyncio.to_thread(read_answers, notes)
        counts = counted.model_copy(update={"read": len(read), **label_counts(read)}).model_dump(mode="json")
        simulated = report.simulated or any(note.simulated for note in notes)
        if read:
            await self.records.begin_writing(report, counts, simulated=simulated)
        else:
            reason = "None of its consultations could be read."
            await self.records.end_with_counts(report, counts, reason, simulated=simulated)

    async def _note_requests(self, note_ids: Sequence[str]) -> Iterable[BatchRequest]:
        made = []
        for note in await self.records.notes(note_ids):
            consultation = await self._database.run(functools.partial(_read, note=note))
            messages = await asyncio.to_thread(note_prompt, consultation, self._redactor)
            made.append(
                BatchRequest(
                    custom_id=note.id,
                    messages=messages,
                    max_tokens=_NOTE_TOKENS,
                    response_schema=ConsultationNote,
                    metadata={"consultation_id": note.consultation_id, "model": self.model},
                )
            )
        return made

    async def _day_requests(self, report_ids: Sequence[str]) -> Iterable[BatchRequest]:
        made = []
        for report in await self.records.reports(report_ids):
            notes = await self.records.notes(report.note_ids)
            made.append(await asyncio.to_thread(self._day_request, report, notes))
        return made

    def _day_request(self, report: StoredReport, notes: Sequence[InsightNote]) -> BatchRequest:
        codes = codes_of(report, notes)
        shown = {f"{_CODE}{codes[note.id]}": note.consultation_id for note, _ in shown_notes(notes)}
        return BatchRequest(
            custom_id=report.id,
            messages=day_prompt(report, notes, self._redactor),
            max_tokens=_DAY_TOKENS,
            response_schema=DayWords,
            metadata={"model": self.model, **shown},
        )

    def _apply_note(self, connection: sa.Connection, result: BatchResult) -> None:
        if result.success and isinstance(result.parsed, ConsultationNote):
            model = result.metadata.get("model")
            answer = result.parsed.model_dump(mode="json")
            self.records.note_read(
                connection, result.custom_id, answer, model=model, cost=result.cost, simulated=result.simulated
            )
        elif self.records.note_failed(
            connection, result.custom_id, _why(result), attempts=MOST_ATTEMPTS, cost=result.cost
        ):
            self._claims.let_go(connection, INSIGHT_NOTES, [result.custom_id])

    def _apply_day(self, connection: sa.Connection, result: BatchResult) -> None:
        report = self.records.report_being_written(connection, result.custom_id)
        if report is None:
            _logger.info("the words of report %s are not waited for any more", result.custom_id)
            return
        reason = _why(result)
        if result.success and isinstance(result.parsed, DayWords):
            codes = {
                name.removeprefix(_CODE): consultation_id
                for name, consultation_id in result.metadata.items()
                if name.startswith(_CODE)
            }
            words, refused, reason = self._standing_words(result.parsed, codes)
            if not reason:
                self.records.written(
                    connection,
                    report.id,
                    words,
                    refused=refused,
                    model=result.metadata.get("model"),
                    cost=result.cost,
                    simulated=result.simulated,
                )
                return
        if self.records.not_written(connection, report.id, reason, attempts=MOST_ATTEMPTS, cost=result.cost):
            self._claims.let_go(connection, INSIGHT_DAY, [report.id])

    def _standing_words(self, answer: DayWords, codes: dict[str, str]) -> tuple[dict[str, Any], int, str]:
        """Return the words that may stand, how many statements may not, and why none of them can be kept."""
        statements: tuple[_Statement, ...] = (*answer.topics, *answer.misunderstandings, *answer.causes)
        if strange := sorted({code for each in statements for code in each.evidence} - codes.keys()):
            return {}, 0, f"It names consultations that it was not given: {', '.join(map(repr, strange[:3]))}."
        words: dict[str, Any] = {"summary": self._clean(answer.summary) if may_stand(answer.summary) else ""}
        refused = 0 if words["summary"] else 1
        for name, said in (
            ("topics", answer.topics), ("misunderstandings", answer.misunderstandings), ("causes", answer.causes)
        ):  # fmt: skip
            kept = [each for each in said if may_stand(each.words)]
            refused += len(said) - len(kept)
            words[name] = [self._kept(each, codes) for each in kept]
        return words, refused, ""

    def _kept(self, statement: _Statement, codes: dict[str, str]) -> dict[str, Any]:
        evidence = list(dict.fromkeys(codes[code] for code in statement.evidence))
        return {**statement.model_dump(mode="json"), "words": self._clean(statement.words), "evidence": evidence}

    def _clean(self, words: str) -> str:
        return self._redactor.redact(words)


def _why(result: BatchResult) -> str:
    return f"{result.outcome}: {result.error or 'there is no answer that can be read'}"


def _read(connection: sa.Connection, note: InsightNote) -> ReadConsultation:
    live = sa.select(verdicts.c.turn_id, verdicts.c.verdict).where(
        verdicts.c.turn_id.in_(note.turn_ids), verdicts.c.purpose == "live"
    )
    stored = {row.turn_id: Verdict.model_validate(row.verdict) for row in connection.execute(live)}
    turns: list[ReadTurn] = []
    names: dict[str, None] = {}
    for turn_id in note.turn_ids:
        shown = delivered_text(connection, turn_id)
        if shown is None:
            continue
        failed = stored[turn_id].failures if turn_id in stored and shown.judgement == "failed" else ()
        turns.append(
            ReadTurn(
                question=shown.question,
                answer=shown.text,
                failed_checks=tuple(dict.fromkeys(each.check for each in failed)),
                broke_off=shown.state in _BROKEN_STATES,
            )
        )
        names |= dict.fromkeys(people_of(shown.customer_id, shown.profile))
    return ReadConsultation(turns=tuple(turns), names=tuple(names))
