"""The case base: anonymised cases from answers that passed, for the prompts of similar questions.

A case is a line: what was asked, and what was answered, in those sentences of both that hold nothing personal. Whole
sentences are left out rather than marked: each in which the redaction of spans finds anything or a name of the customer
or of whom their profile tells, and each with a number, because sums tell who somebody is and figures are looked up by
date. A question that tells of health, family, debt or the like (`case_wording.yaml`) becomes no case at all. Of cases
that are nearly the same the first stays.

A turn is looked at once, when its verdict stands passed and nobody is looking at it. What a simulator answered becomes
a case only where no answer in the records is a real model's.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from guidance_agent.core.bulk import insert_or_change
from guidance_agent.core.delivered_text import DeliveredText, delivered_text
from guidance_agent.core.schema import cases, consultations, turn_lessons, turns
from guidance_agent.core.shipped import read_shipped
from guidance_agent.core.text import is_storable
from guidance_agent.learning.failures import FailureRecords, being_reviewed
from guidance_agent.retrieval.topics import load_topics
from guidance_agent.retrieval.vectors import FloatArray, QueryVector, embedding_columns, vector_from_bytes
from guidance_agent.tracing.people import people_of
from guidance_agent.tracing.redaction import Redactor

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database
    from guidance_agent.retrieval.embeddings import Embedder

__all__ = ["LONGEST_ANSWER", "LONGEST_QUESTION", "SAME_CASE_FROM", "CaseBase", "CaseWriter"]

SAME_CASE_FROM = 0.9
"""Cosine of two cases' vectors from which the later one adds nothing."""
LONGEST_QUESTION = 240
LONGEST_ANSWER = 400
"""Characters of each at most: two cases stand in a prompt."""

_LESSON = "case"
_AT_ONCE = 50
_SHORTEST = 20
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_MARKS = re.compile(r"^[\s#>*\-•]+|[*_`]+")
_NUMBER = re.compile(r"\d|£")


class _Wording(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    private: tuple[str, ...]


class _Found(NamedTuple):
    turn_id: str
    text: str | None
    why: str
    simulated: bool
    topic: str | None = None


class _People(NamedTuple):
    """Who a conversation is about: its redacted text, names that were known before, and those that were found in it."""

    redacted: str
    known: tuple[str, ...]
    learned: frozenset[str]


class CaseWriter:
    """Makes the line of a case. Reads files on first use; may be used from any thread."""

    def __init__(self) -> None:
        self._redactor = Redactor()

    def line(self, question: str, answer: str, names: Sequence[str]) -> str | None:
        """Return the case, with nothing personal; None where nothing is left to tell.

        Args:
            question: What was asked.
            answer: What was answered, and passed.
            names: Names of the customer and of those whom they told of; see `people_of`.
        """
        if any(pattern.search(question) for pattern in _private()):
            return None
        # What a name is often shows elsewhere only: both are read as a whole before their sentences are looked at.
        redacted, learned = self._redactor.read(f"{question}\n\n{answer}", known=tuple(names))
        people = _People(redacted, tuple(names), learned)
        asked = self._kept(question, people, most=LONGEST_QUESTION)
        answered = self._kept(answer, people, most=LONGEST_ANSWER)
        if len(asked) < _SHORTEST or len(answered) < _SHORTEST:
            return None
        line = f"Asked: {asked} Answered: {answered}"
        return line if is_storable(line) and not self._finds_in(line, people) else None

    def _kept(self, text: str, people: _People, *, most: int) -> str:
        kept: list[str] = []
        length = 0
        for piece in _SENTENCE_END.split(text):
            sentence = " ".join(_MARKS.sub("", piece).split())
            if not sentence or _NUMBER.search(sentence) or piece not in people.redacted:
                continue
            if self._finds_in(sentence, people):
                continue
            length += len(sentence) + 1
            if length > most:
                break
            kept.append(sentence)
        return " ".join(kept)

    def _finds_in(self, text: str, people: _People) -> bool:
        return self._redactor.redact(text, known=people.known, learned=people.learned) != text


class CaseBase:
    """Writes cases. May run in several processes.

    Args:
        database: The records.
        clock: Times and ids.
        embedder: Makes the vectors by which a question finds cases.
    """

    def __init__(self, database: Database, clock: Clock, embedder: Embedder) -> None:
        self._database = database
        self._clock = clock
        self._embedder = embedder
        self._failures = FailureRecords(database, clock)
        self._writer = CaseWriter()

    async def add_new(self, *, limit: int = 2_000) -> int:
        """Look at passed turns that were not looked at, at most `limit`; returns how many cases they led to.

        Raises:
            ModelError: the vectors could not be made; what was written before stays.
        """
        added, looked_at = 0, 0
        simulated_too = await self._failures.is_all_simulated()
        while looked_at < limit and (found := await self._unread(min(_AT_ONCE, limit - looked_at), simulated_too)):
            looked_at += len(found)
            made = [each for each in found if each.text is not None]
            vectors = list(await self._embedder.embed([str(each.text) for each in made])) if made else []
            added += await self._database.transaction(functools.partial(self._write, found=found, vectors=vectors))
        return added

    async def _unread(self, limit: int, simulated_too: bool) -> list[_Found]:
        done = sa.exists().where(turn_lessons.c.turn_id == turns.c.id, turn_lessons.c.kind == _LESSON)
        query = (
            sa.select(turns.c.id, turns.c.simulated)
            .join(consultations, consultations.c.id == turns.c.consultation_id)
            .where(
                turns.c.judgement == "passed",
                turns.c.state == "completed",
                turns.c.finish_reason == "stop",
                consultations.c.outcome != "failed",
                ~being_reviewed(self._clock),
                ~done,
            )
            .order_by(turns.c.ended_at, turns.c.id)
            .limit(limit)
        )
        if not simulated_too:
            query = query.where(turns.c.simulated.is_(False))

        def read(connection: sa.Connection) -> list[tuple[Any, DeliveredText | None]]:
            return [(row, delivered_text(connection, row.id)) for row in connection.execute(query).all()]

        return await asyncio.to_thread(self._lines, await self._database.run(read))

    def _lines(self, read: Sequence[tuple[Any, DeliveredText | None]]) -> list[_Found]:
        return [self._line(row, shown) for row, shown in read]

    def _line(self, row: Any, shown: DeliveredText | None) -> _Found:
        if shown is None:
            return _Found(row.id, None, "nothing was delivered", row.simulated)
        people = people_of(shown.customer_id, shown.profile)
        line = self._writer.line(shown.question, shown.text, people)
        if line is None:
            return _Found(row.id, None, "nothing is left that is not personal", row.simulated)
        topics = load_topics().route(shown.question, day=self._clock.today())
        return _Found(row.id, line, "", row.simulated, topics[0].name if topics else None)

    def _write(self, connection: sa.Connection, *, found: Sequence[_Found], vectors: Sequence[FloatArray]) -> int:
        _lock(connection)
        known = _Known(connection, self._embedder.model, simulated=found[0].simulated)
        added, number = 0, 0
        for each in found:
            if each.text is None:
                self._note(connection, each.turn_id, each.why)
                continue
            vector, number = vectors[number], number + 1
            same = known.holds(vector)
            if not self._note(connection, each.turn_id, "there is such a case" if same else "a case") or same:
                continue
            known.add(vector)
            connection.execute(
                sa.insert(cases).values(
                    id=self._clock.new_id("case"),
                    turn_id=each.turn_id,
                    topic=each.topic,
                    text=each.text,
                    created_at=self._clock.now(),
                    simulated=each.simulated,
                    **embedding_columns(QueryVector(self._embedder.model, vector)),
                )
            )
            added += 1
        return added

    def _note(self, connection: sa.Connection, turn_id: str, why: str) -> bool:
        """Note that a turn was looked at; False where another process has done so."""
        row = {"turn_id": turn_id, "kind": _LESSON, "result": {"became": why}, "created_at": self._clock.now()}
        insert = insert_or_change(connection.dialect.name, turn_lessons).values(row)
        inserted = insert.on_conflict_do_nothing().returning(turn_lessons.c.turn_id)
        return connection.execute(inserted).first() is not None


class _Known:
    """The vectors of the cases that there are."""

    def __init__(self, connection: sa.Connection, model: str, *, simulated: bool) -> None:
        query = sa.select(cases.c.embedding).where(
            cases.c.embedding_model == model, cases.c.embedding.is_not(None), cases.c.simulated == simulated
        )
        stored = [vector_from_bytes(each) for each in connection.execute(query).scalars()]
        self._matrix = np.stack(stored) if stored else None

    def holds(self, vector: FloatArray) -> bool:
        return self._matrix is not None and bool((self._matrix @ vector).max() >= SAME_CASE_FROM)

    def add(self, vector: FloatArray) -> None:
        self._matrix = vector[None, :] if self._matrix is None else np.vstack([self._matrix, vector])


@functools.cache
def _private() -> tuple[re.Pattern[str], ...]:
    file = resources.files("guidance_agent.learning") / "case_wording.yaml"
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in read_shipped(file, _Wording).private)


def _lock(connection: sa.Connection) -> None:
    """Let no other process add cases before this transaction ends; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("LOCK TABLE cases IN SHARE ROW EXCLUSIVE MODE"))
