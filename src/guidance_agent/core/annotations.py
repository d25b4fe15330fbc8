"""Annotations: what is said of an answer beside its span, kept in the records until the tracing backend has it.

A row is written in the transaction that stores a verdict, or a person's decision, so that neither is without the other.
There is one row for each name and turn: what is said later replaces what was said before and is sent anew, under the
same identifier, by which the backend replaces it as well.

`next_attempt` is at once the time before which a row is not tried again and the lease of the process that tries it:
whoever takes rows moves it on, so that two processes do not send the same, and a process that dies holds nothing up for
longer than the lease. A row that was replaced while it was under way keeps its lease, and is due as soon as that ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.bulk import insert_rows
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.schema import consultations, span_annotations, turns
from guidance_agent.core.types import JsonObject
from guidance_agent.tracing.people import people_of
from guidance_agent.tracing.span import read_traceparent

__all__ = [
    "COMPLIANCE",
    "IDENTIFIER",
    "REVIEWED",
    "AnnotationBacklog",
    "AnnotatorKind",
    "DueAnnotation",
    "NewAnnotation",
    "Undelivered",
    "annotate",
    "of_decision",
    "of_unjudged",
    "of_verdict",
]

COMPLIANCE = "compliance"
"""The annotation with the verdict that stands, whoever gave it."""

REVIEWED = "review"
"""The annotation with what a person decided."""

IDENTIFIER = "guidance-agent"
"""What is sent again under this identifier replaces what was sent before."""

AnnotatorKind = Literal["LLM", "CODE", "HUMAN"]

_LONGEST_EXPLANATION = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAnnotation:
    """What is to be said of an answer. `score` is 1 where it is well, 0 where it is not, None where nobody knows."""

    name: str
    annotator_kind: AnnotatorKind
    label: str
    score: float | None
    explanation: str | None
    details: JsonObject = field(default_factory=dict)


class DueAnnotation(NamedTuple):
    """An annotation that this process may send.

    Attributes:
        version: Tells what was taken from what replaced it meanwhile.
        attempts: How often this version was offered, this time included.
        names: Whom redaction looks for in the texts; see `people_of`.
    """

    id: str
    version: int
    attempts: int
    span_id: str
    name: str
    annotator_kind: str
    label: str
    score: float | None
    explanation: str | None
    details: JsonObject
    identifier: str
    names: tuple[str, ...]


class Undelivered(NamedTuple):
    """An attempt that failed: when to try again, in seconds from now, and what went wrong.

    With 0 seconds it was not the annotation's fault, and does not count as an attempt of its.
    """

    annotation: DueAnnotation
    after: float
    error: str


def of_verdict(verdict: JsonObject) -> NewAnnotation:
    """Return what a stored verdict, of the judge or of a person, says of an answer."""
    failed = [result for result in verdict["checks"] if result["status"] == "fail"]
    details = {
        "confidence": verdict["confidence"],
        "failed_checks": list(dict.fromkeys(result["check"] for result in failed)),
        "judge_model": verdict.get("judge_model"),
        "policy_version": verdict["policy_version"],
        "simulated": verdict.get("simulated", False),
    }
    kind: AnnotatorKind = "LLM" if verdict.get("judge_model") else "CODE"
    if verdict.get("reviewer") is not None:
        kind = "HUMAN"
    if (unreadable := verdict.get("unreadable")) is not None:
        label, score, explanation = "unreadable", None, f"The judge's answer cannot be read: {unreadable}"
    else:
        label, score = ("passed", 1.0) if verdict["passed"] else ("failed", 0.0)
        explanation = "\n".join(map(_line, failed))
        if not failed and not verdict["passed"]:
            explanation = (
                "Not every check was answered." if kind != "HUMAN" else "A person found that it does not pass."
            )
    return NewAnnotation(
        name=COMPLIANCE,
        annotator_kind=kind,
        label=label,
        score=score,
        explanation=explanation[:_LONGEST_EXPLANATION] or None,
        details=details,
    )


def of_decision(decision: str, verdict: JsonObject) -> NewAnnotation:
    """Return what a person decided, as far as others may know it: without the name and the reason."""
    said = of_verdict(verdict)
    approved = decision == "approve"
    return NewAnnotation(
        name=REVIEWED,
        annotator_kind="HUMAN",
        label="approved" if approved else "upheld",
        score=1.0 if approved else 0.0,
        explanation=said.explanation,
        details={"failed_checks": said.details["failed_checks"], "policy_version": said.details["policy_version"]},
    )


def of_unjudged(detail: str) -> NewAnnotation:
    """Return what is said of an answer that no judge could judge."""
    return NewAnnotation(
        name=COMPLIANCE,
        annotator_kind="CODE",
        label="needs review",
        score=None,
        explanation=detail[:_LONGEST_EXPLANATION] or None,
    )


def _line(result: Mapping[str, Any]) -> str:
    severity = f"{result['severity']}; " if result.get("severity") else ""
    quote = "" if result.get("quote") is None else f" “{result['quote']}”"
    return f"{result['check']} ({severity}{result['requirement']}): {result['explanation']}{quote}"


def annotate(
    connection: sa.Connection,
    clock: Clock,
    turn_id: str,
    make: Callable[[], NewAnnotation],
    *,
    verdict_id: str | None = None,
) -> None:
    """Write an annotation of a turn's answer in the caller's transaction; nothing where the turn was not traced.

    The caller holds the lock of the turn's row, so nobody else writes the same.
    """
    traced = connection.execute(
        sa.select(turns.c.traceparent, turns.c.answer_span_id).where(turns.c.id == turn_id)
    ).first()
    root = None if traced is None else read_traceparent(traced.traceparent)
    if traced is None or root is None or not root.sampled or traced.answer_span_id is None:
        return
    now, new = clock.now(), make()
    said = {
        "verdict_id": verdict_id,
        "annotator_kind": new.annotator_kind,
        "label": new.label,
        "score": new.score,
        "explanation": new.explanation,
        "details": {**new.details, "turn_id": turn_id, "verdict_id": verdict_id},
        "created_at": now,
        "attempts": 0,
        "sent_at": None,
        "error": None,
    }
    row = span_annotations.c
    key = (row.turn_id == turn_id, row.name == new.name, row.identifier == IDENTIFIER)
    # One that is under way must have arrived, or be given up, before what replaces it is sent.
    due = sa.case((row.sent_at.is_(None), row.next_attempt), else_=now.timestamp())
    replacing = sa.update(span_annotations).where(*key).values(**said, version=row.version + 1, next_attempt=due)
    if connection.execute(replacing).rowcount:
        return
    insert_rows(
        connection,
        span_annotations,
        [
            {
                "id": clock.new_id("annotation"),
                "turn_id": turn_id,
                "trace_id": f"{root.trace_id:032x}",
                "span_id": traced.answer_span_id,
                "name": new.name,
                "identifier": IDENTIFIER,
                "version": 1,
                "next_attempt": now.timestamp(),
                **said,
            }
        ],
    )


class AnnotationBacklog:
    """The annotations that wait to be sent. Raises `DatabaseUnavailableError` when the database cannot be used.

    Args:
        keep_trying: For how long an annotation is tried, counted from what it says.
    """

    def __init__(self, database: Database, clock: Clock, *, keep_trying: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._keep_trying = keep_trying

    async def waiting(self) -> int:
        """Return how many wait, those included that are not to be tried yet."""
        query = sa.select(sa.func.count()).select_from(span_annotations).where(*self._unsent())
        return await self._database.run(lambda connection: connection.execute(query).scalar_one())

    async def any_due(self, also: Collection[str] = ()) -> bool:
        """Whether there is something to send now; `also` are ids that count before their time."""
        query = sa.select(span_annotations.c.id).where(*self._due_now(also)).limit(1)
        return await self._database.run(lambda connection: connection.execute(query).first()) is not None

    async def take(self, limit: int, *, lease: float, also: Collection[str] = ()) -> Sequence[DueAnnotation]:
        """Return annotations that are due, those that became so first first; others leave them alone for `lease` s."""
        if not await self.any_due(also):
            # A look that finds nothing writes nothing.
            return ()
        until = self._clock.now().timestamp() + lease
        chosen = (
            sa.select(span_annotations, consultations.c.customer_id, consultations.c.profile)
            .join(turns, turns.c.id == span_annotations.c.turn_id)
            .join(consultations, consultations.c.id == turns.c.consultation_id)
            .where(*self._due_now(also))
            .order_by(span_annotations.c.next_attempt, span_annotations.c.id)
            .limit(limit)
            .with_for_update(of=span_annotations, skip_locked=True)
        )

        def write(connection: sa.Connection) -> Sequence[DueAnnotation]:
            rows = connection.execute(chosen).mappings().all()
            change = sa.update(span_annotations).where(span_annotations.c.id.in_([row["id"] for row in rows]))
            connection.execute(change.values(next_attempt=until))
            return [_due(dict(row)) for row in rows]

        return await self._database.transaction(write)

    async def settle(self, sent: Sequence[DueAnnotation], undelivered: Sequence[Undelivered]) -> None:
        """Note what became of annotations that were taken; what has replaced one of them is due at once."""
        at = self._clock.now()
        now = at.timestamp()
        changes: dict[tuple[object, ...], list[str]] = {}
        for each in sent:
            changes.setdefault((each.version, each.attempts, None, None), []).append(each.id)
        for each, after, error in undelivered:
            attempts = each.attempts if after else each.attempts - 1
            changes.setdefault((each.version, attempts, now + after, error), []).append(each.id)

        def write(connection: sa.Connection) -> None:
            row = span_annotations.c
            for (version, attempts, next_attempt, error), ids in changes.items():
                values = {"attempts": attempts, "error": error}
                values |= {"sent_at": at} if next_attempt is None else {"next_attempt": next_attempt}
                mine = sa.update(span_annotations).where(row.id.in_(ids), row.sent_at.is_(None))
                if connection.execute(mine.where(row.version == version).values(values)).rowcount < len(ids):
                    connection.execute(mine.where(row.version != version).values(next_attempt=now))

        await self._database.transaction(write)

    def _due_now(self, also: Collection[str]) -> tuple[sa.ColumnElement[bool], ...]:
        is_due = span_annotations.c.next_attempt <= self._clock.now().timestamp()
        return *self._unsent(), sa.or_(is_due, span_annotations.c.id.in_(also)) if also else is_due

    def _unsent(self) -> tuple[sa.ColumnElement[bool], ...]:
        oldest = self._clock.now() - self._keep_trying
        return span_annotations.c.sent_at.is_(None), span_annotations.c.created_at > oldest


def _due(row: JsonObject) -> DueAnnotation:
    values = {name: row[name] for name in DueAnnotation._fields if name not in ("attempts", "names")}
    people = people_of(row["customer_id"], row["profile"])
    return DueAnnotation(**values, attempts=row["attempts"] + 1, names=people)
