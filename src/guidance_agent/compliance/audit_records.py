"""Audited turns as the records have them: the audit's verdict beside the first one and what the gate did."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from guidance_agent.compliance.audit_subjects import AuditRun, AuditSubjects
from guidance_agent.compliance.verdict import Verdict
from guidance_agent.core.delivered_text import delivered_text
from guidance_agent.core.schema import consultations, gate_actions, reviews, turns, verdicts
from guidance_agent.core.schema_audit import audit_turns
from guidance_agent.core.verdicts import LIVE
from guidance_agent.tracing.people import people_of

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database

__all__ = ["AuditRecords", "AuditedTurn", "Flagged", "Scope", "ScopeStanding", "Unanswered"]

_PAGE = 200
_AUDIT = "audit"


class Scope(NamedTuple):
    """Which audits are looked at; `simulated` is whether they are of answers of a simulator."""

    run_id: str | None
    since: datetime | None
    until: datetime | None
    simulated: bool


class Flagged(NamedTuple):
    """What the gate let through and put on record: by which of its checks, where, and in which words."""

    check: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedTurn:
    """A turn with everything that is said of it.

    Attributes:
        model: Who wrote the answer.
        rules_version: The released rules in its prompt.
        gate: How often the gate did what.
        first: The live verdict; None where there is none.
        review: How the review stands that an audit asked for: `open`, `claimed`, or what was decided.
        names: Whom redaction looks for.
    """

    turn_id: str
    ended_at: datetime
    model: str
    rules_version: object
    gate: Mapping[str, int]
    flagged: Sequence[Flagged]
    first: Verdict | None
    audit: Verdict
    review: str | None
    names: tuple[str, ...]


class Unanswered(NamedTuple):
    """A turn that could not be audited, and why."""

    turn_id: str
    error: str


class ScopeStanding(NamedTuple):
    """The runs that are looked at, turns of theirs that wait, and turns that could not be audited."""

    runs: Sequence[AuditRun]
    waiting: int
    unanswered: Sequence[Unanswered]


class AuditRecords:
    """Reads audits. Raises `DatabaseUnavailableError` when the database cannot be used."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._subjects = AuditSubjects(database, clock)

    async def scope(self, *, run_id: str | None, since: datetime | None, until: datetime | None) -> Scope:
        """Return which audits are looked at; those of a simulator's answers where there are no others.

        Raises:
            UnknownAuditError: there is no such run.
        """
        if run_id is not None:
            run = await self._subjects.run(run_id)
            return Scope(run_id, since, until, run.simulated)
        runs = await self._subjects.runs()
        return Scope(None, since, until, bool(runs) and all(run.simulated for run in runs))

    async def pages(self, scope: Scope) -> AsyncIterator[Sequence[AuditedTurn]]:
        """Yield the newest audit of each turn, a page of them at a time."""
        after = ""
        while True:
            found = await self._database.run(partial(_page, scope=scope, after=after))
            if not found:
                return
            yield found
            after = found[-1].turn_id

    async def standing(self, scope: Scope) -> ScopeStanding:
        """Return what is not a verdict, or not yet."""
        runs = [run for run in await self._subjects.runs(run_id=scope.run_id) if run.simulated == scope.simulated]
        row = audit_turns.c
        query = (
            sa.select(row.turn_id, row.state, row.error)
            .where(row.run_id.in_([run.id for run in runs]), *_within(scope))
            .where(sa.or_(row.state == "waiting", row.outcome == "unanswered"))
            .join(turns, turns.c.id == row.turn_id)
            .order_by(row.turn_id)
        )
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        unanswered = [Unanswered(turn_id, error or "") for turn_id, state, error in rows if state != "waiting"]
        return ScopeStanding(runs, len(rows) - len(unanswered), unanswered)


def _within(scope: Scope) -> Iterator[sa.ColumnElement[bool]]:
    if scope.since is not None:
        yield turns.c.ended_at >= scope.since
    if scope.until is not None:
        yield turns.c.ended_at < scope.until


def _page(connection: sa.Connection, *, scope: Scope, after: str) -> list[AuditedTurn]:
    rows = connection.execute(_audits(scope, after)).mappings().all()
    ids = [row["turn_id"] for row in rows]
    first, gate, review = _first(connection, ids), _gate(connection, ids), _reviews(connection, ids)
    return [
        AuditedTurn(
            turn_id=row["turn_id"],
            ended_at=row["ended_at"],
            model=row["model"],
            rules_version=row["context"].get("rules_version"),
            gate=Counter(action["action"] for action in gate[row["turn_id"]]),
            flagged=_flagged(connection, row["turn_id"], gate[row["turn_id"]]),
            first=first.get(row["turn_id"]),
            audit=Verdict.model_validate(row["verdict"]),
            review=review.get(row["turn_id"]),
            names=people_of(row["customer_id"], row["profile"]),
        )
        for row in rows
    ]


def _audits(scope: Scope, after: str) -> sa.Select[Any]:
    row, later = audit_turns.c, audit_turns.alias("later")
    query = (
        sa.select(
            row.turn_id,
            turns.c.ended_at,
            turns.c.model,
            turns.c.context,
            consultations.c.customer_id,
            consultations.c.profile,
            verdicts.c.verdict,
        )
        .join(verdicts, verdicts.c.id == row.verdict_id)
        .join(turns, turns.c.id == row.turn_id)
        .join(consultations, consultations.c.id == turns.c.consultation_id)
        .where(row.turn_id > after, turns.c.simulated == scope.simulated, *_within(scope))
        .order_by(row.turn_id)
        .limit(_PAGE)
    )
    if scope.run_id is not None:
        return query.where(row.run_id == scope.run_id)
    is_later = sa.or_(later.c.ended_at > row.ended_at, sa.and_(later.c.ended_at == row.ended_at, later.c.id > row.id))
    return query.where(~sa.exists().where(later.c.turn_id == row.turn_id, later.c.verdict_id.is_not(None), is_later))


def _first(connection: sa.Connection, ids: Sequence[str]) -> dict[str, Verdict]:
    query = (
        sa.select(verdicts.c.turn_id, verdicts.c.verdict)
        .where(verdicts.c.turn_id.in_(ids), verdicts.c.purpose == LIVE)
        .order_by(verdicts.c.created_at, verdicts.c.id)
    )
    return {turn_id: Verdict.model_validate(said) for turn_id, said in connection.execute(query)}


def _gate(connection: sa.Connection, ids: Sequence[str]) -> defaultdict[str, list[Mapping[str, Any]]]:
    action = gate_actions.c
    query = (
        sa.select(action.turn_id, action.action, action.check, action.start, action.end)
        .where(action.turn_id.in_(ids))
        .order_by(action.turn_id, action.number)
    )
    found: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in connection.execute(query).mappings():
        found[row["turn_id"]].append(dict(row))
    return found


def _flagged(connection: sa.Connection, turn_id: str, actions: Sequence[Mapping[str, Any]]) -> list[Flagged]:
    flagged = [each for each in actions if each["action"] == "flagged" and each["check"] is not None]
    if not flagged or (shown := delivered_text(connection, turn_id)) is None:
        return []
    return [
        Flagged(each["check"], each["start"], each["end"], shown.text[each["start"] : each["end"]]) for each in flagged
    ]


def _reviews(connection: sa.Connection, ids: Sequence[str]) -> dict[str, str]:
    query = sa.select(reviews.c.turn_id, reviews.c.status, reviews.c.decision).where(
        reviews.c.turn_id.in_(ids), reviews.c.cause == _AUDIT
    )
    return {turn_id: decision or status for turn_id, status, decision in connection.execute(query)}
