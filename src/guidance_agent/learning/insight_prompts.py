"""The prompts of an insight report: one consultation for a note, then a day's notes for its words.

Nothing that belongs to a person leaves in them. Texts are redacted as spans are, with the names that the profile has
and those that the conversation announces; sums of money keep one figure. Consultations are named by codes that follow
from the report, not by their ids.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from guidance_agent.compliance.data_blocks import block_code
from guidance_agent.core.insight_records import InsightNote, StoredReport
from guidance_agent.learning.insight_answers import (
    LONGEST_NOTE,
    LONGEST_STATEMENT,
    LONGEST_SUMMARY,
    NO_CAUSE,
    ConsultationNote,
    insight_labels,
    may_stand,
)
from guidance_agent.learning.rendering import render_prompt
from guidance_agent.llm.messages import Message
from guidance_agent.tracing.redaction import Redactor

__all__ = [
    "NOTES_SHOWN",
    "ReadConsultation",
    "ReadTurn",
    "codes_of",
    "day_prompt",
    "label_counts",
    "note_prompt",
    "read_answers",
    "shown_notes",
]

NOTES_SHOWN = 200
"""Most notes of a day that its words are written from; all of them are counted."""

_LONGEST_TEXT = 4_000
_LONGEST_CONSULTATION = 24_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTurn:
    """A turn as it is read for a note: what was asked, what was delivered, and what failed."""

    question: str
    answer: str
    failed_checks: tuple[str, ...] = ()
    broke_off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadConsultation:
    """The turns of a consultation on a day, with the names that must not leave (`people_of`)."""

    turns: tuple[ReadTurn, ...]
    names: tuple[str, ...] = ()


def note_prompt(consultation: ReadConsultation, redactor: Redactor) -> tuple[Message, ...]:
    """Return the prompt for a note; redacting takes milliseconds, so call it off the event loop."""
    shown = _redacted(consultation, redactor)
    texts = [text for turn in shown for text in (turn.question, turn.answer, *turn.failed_checks)]
    last = render_prompt("insight_consultation.md.j2", code=block_code(texts), turns=shown)
    return _stable("insight_note.md.j2"), Message("user", last)


def day_prompt(report: StoredReport, notes: Sequence[InsightNote], redactor: Redactor) -> tuple[Message, ...]:
    """Return the prompt for a day's words, from what was noted of its consultations."""
    codes = codes_of(report, notes)
    shown = [_shown(codes[note.id], read, redactor) for note, read in shown_notes(notes)]
    counts = label_counts(read_answers(notes))
    last = render_prompt(
        "insight_notes.md.j2", code=block_code([str(each) for each in shown]), notes=shown, counts=counts
    )
    return _stable("insight_day.md.j2"), Message("user", last)


def shown_notes(notes: Sequence[InsightNote]) -> list[tuple[InsightNote, ConsultationNote]]:
    """Return the notes that a day's words are written from: those that say most first, then by their ids."""
    read = [(note, answer) for note in notes if (answer := _answer(note)) is not None]
    read.sort(key=lambda each: (-len(each[1].misunderstandings), each[1].cause == NO_CAUSE, each[0].id))
    return sorted(read[:NOTES_SHOWN], key=lambda each: each[0].id)


def codes_of(report: StoredReport, notes: Sequence[InsightNote]) -> dict[str, str]:
    """Return the codes that stand for consultations in a report's prompt, by the ids of their notes."""
    codes: dict[str, str] = {}
    taken: set[str] = set()
    for note in sorted(notes, key=lambda each: each.id):
        whole = hashlib.sha256(f"{report.id}\0{note.id}".encode()).hexdigest()
        code = next(whole[:length] for length in range(6, 65) if whole[:length] not in taken)
        taken.add(code)
        codes[note.id] = code
    return codes


def read_answers(notes: Sequence[InsightNote]) -> list[ConsultationNote]:
    """Return what was noted, without the notes of consultations that could not be read."""
    return [answer for note in notes if (answer := _answer(note)) is not None]


def _answer(note: InsightNote) -> ConsultationNote | None:
    """Return what a note says; None too where it was written with labels that are in the lists no more."""
    if note.answer is None:
        return None
    try:
        return ConsultationNote.model_validate(note.answer)
    except ValidationError:
        return None


def label_counts(notes: Sequence[ConsultationNote]) -> dict[str, dict[str, int]]:
    """Return of how many consultations each topic and each cause was noted, the most frequent first."""
    topics = Counter(topic for note in notes for topic in set(note.topics))
    causes = Counter(note.cause for note in notes if note.cause != NO_CAUSE)
    return {"topics": _ranked(topics), "causes": _ranked(causes)}


@functools.cache
def _stable(template: str) -> Message:
    labels = insight_labels()
    text = render_prompt(
        template,
        topics=labels.topics,
        causes=labels.causes,
        longest_note=LONGEST_NOTE,
        longest=LONGEST_STATEMENT,
        longest_summary=LONGEST_SUMMARY,
    )
    return Message("system", text, part="insights")


def _ranked(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _shown(code: str, note: ConsultationNote, redactor: Redactor) -> dict[str, object]:
    return {
        "code": code,
        "topics": note.topics,
        "cause": "" if note.cause == NO_CAUSE else note.cause,
        "cause_words": redactor.redact(note.cause_words) if may_stand(note.cause_words) else "",
        "misunderstandings": [
            (each.topic, redactor.redact(each.words)) for each in note.misunderstandings if may_stand(each.words)
        ],
    }


def _redacted(consultation: ReadConsultation, redactor: Redactor) -> list[ReadTurn]:
    """Return the turns without personal data, the last ones first to be kept where all are too long."""
    texts = [text for turn in consultation.turns for text in (turn.question, turn.answer)]
    learned = frozenset().union(*(redactor.names_in(text) for text in texts))

    def clean(text: str) -> str:
        whole = redactor.redact(text, known=consultation.names, learned=learned)
        return whole if len(whole) <= _LONGEST_TEXT else f"{whole[:_LONGEST_TEXT]} […]"

    made: list[ReadTurn] = []
    left = _LONGEST_CONSULTATION
    for turn in reversed(consultation.turns):
        shown = ReadTurn(
            question=clean(turn.question),
            answer=clean(turn.answer),
            failed_checks=turn.failed_checks,
            broke_off=turn.broke_off,
        )
        left -= len(shown.question) + len(shown.answer)
        if left < 0 and made:
            break
        made.append(shown)
    return made[::-1]
