"""Which turns are audited: a run's plan, and the delivered turns that no run has under the present policy.

A turn belongs to one run for each policy version: the database refuses it a second time, whoever opens runs at once.
Whether it is part of a sample follows from its id alone, so that a larger share holds the smaller one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.bulk import insert_or_change
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.schema import batch_claims, turns
from guidance_agent.core.schema_audit import audit_runs, audit_turns
from guidance_agent.errors import InputError, UnknownAuditError

__all__ = ["KIND", "AuditPlan", "AuditRun", "AuditSubjects", "in_sample"]

KIND = "audit"
"""The name of the kind of its batches."""

_PAGE = 2_000
_AT_ONCE = 500
_JUDGED = ("passed", "failed", "unjudged_needs_review")
_UNANSWERED = sa.and_(audit_turns.c.state == "ended", audit_turns.c.outcome == "unanswered")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """What a run audits.

    Attributes:
        share: Which part of the turns, from 0 (none) to 1 (all).
        since: Only turns that ended then or later, and before `until`.
        model: The judge; None is the one that judges while answers are given.
        limit: At most so many turns, those that ended first first; None is all.
        retry: Whether turns that earlier runs could not audit are tried again, as far as they are those of this plan.
    """

    share: float = 1.0
    since: datetime | None = None
    until: datetime | None = None
    model: str | None = None
    limit: int | None = None
    retry: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise InputError(f"share={self.share!r} is no share of the turns. Give a number from 0 to 1.")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit={self.limit!r} is no number of turns. Give 1 or more, or none.")
        for name in ("since", "until"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise InputError(f"{name}={moment!r} has no time zone. Give it one.")

    def as_json(self) -> dict[str, Any]:
        """Return the plan as the records keep it."""
        return {
            "share": self.share,
            "since": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "limit": self.limit,
            "retry": self.retry,
        }


class AuditRun(NamedTuple):
    """A run, and how it stands: `waiting` of its turns have no end yet, the others stand under their outcomes."""

    id: str
    model: str
    policy_version: str
    plan: Mapping[str, Any]
    simulated: bool
    created_at: datetime
    waiting: int
    outcomes: Mapping[str, int]

    @property
    def turns(self) -> int:
        return self.waiting + sum(self.outcomes.values())

    @property
    def done(self) -> bool:
        return self.waiting == 0


def in_sample(turn_id: str, share: float) -> bool:
    """Whether a turn is part of a sample; the same for ever, and part of every larger sample."""
    if share >= 1.0:
        return True
    digest = hashlib.sha256(turn_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


class AuditSubjects:
    """Opens runs. Raises `DatabaseUnavailableError` when the database cannot be used."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def open_run(
        self, plan: AuditPlan, *, model: str, policy_version: str, simulated_judge: bool
    ) -> AuditRun | None:
        """Open a run on what no run has, and return it; None where there is nothing.

        What a simulator wrote is audited where the records hold nothing else, and what a model wrote is not audited by
        a simulator.
        """
        now, run_id = self._clock.now(), self._clock.new_id("audit")

        def write(connection: sa.Connection) -> AuditRun | None:
            all_simulated = _is_all_simulated(connection)
            if simulated_judge and not all_simulated:
                return None
            wanted = list(self._wanted(connection, plan, policy_version, simulated_too=all_simulated))
            run = AuditRun(run_id, model, policy_version, plan.as_json(), all_simulated, now, 0, {})
            connection.execute(
                sa.insert(audit_runs).values(
                    id=run_id,
                    model=model,
                    policy_version=policy_version,
                    plan=run.plan,
                    simulated=all_simulated,
                    created_at=now,
                )
            )
            if plan.retry:
                self._take_again(connection, run, wanted)
            count = self._take(connection, run, wanted)
            if not count:
                connection.execute(sa.delete(audit_runs).where(audit_runs.c.id == run_id))
                return None
            return run._replace(waiting=count)

        return await self._database.transaction(write)

    async def run(self, run_id: str) -> AuditRun:
        """Return how a run stands.

        Raises:
            UnknownAuditError: there is none with this id.
        """
        found = await self.runs(run_id=run_id)
        if not found:
            raise UnknownAuditError(
                f"There is no audit {run_id!r}. `guidance-agent audit report --json` lists the runs."
            )
        return found[0]

    async def runs(self, *, run_id: str | None = None) -> Sequence[AuditRun]:
        """Return the runs, the newest first, or the one with an id."""
        return await self._database.run(lambda connection: _runs(connection, run_id))

    async def outcomes(self, policy_version: str) -> Mapping[str, int]:
        """Return how many turns ended how under a policy."""
        row = audit_turns.c
        query = (
            sa.select(row.outcome, sa.func.count())
            .where(row.policy_version == policy_version, row.state == "ended")
            .group_by(row.outcome)
            .order_by(row.outcome)
        )
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        return {outcome: count for outcome, count in rows}

    def _wanted(
        self, connection: sa.Connection, plan: AuditPlan, policy_version: str, *, simulated_too: bool
    ) -> Iterator[str]:
        """Yield turns that no run has, or whose audit is to be tried again; those that ended first first."""
        known = sa.exists().where(audit_turns.c.turn_id == turns.c.id, audit_turns.c.policy_version == policy_version)
        if plan.retry:
            known = known.where(~_UNANSWERED)
        query = (
            sa.select(turns.c.id)
            .where(turns.c.judgement.in_(_JUDGED), turns.c.text_hash.is_not(None), ~known)
            .order_by(turns.c.ended_at, turns.c.id)
        )
        if not simulated_too:
            query = query.where(turns.c.simulated.is_(False))
        if plan.since is not None:
            query = query.where(turns.c.ended_at >= plan.since)
        if plan.until is not None:
            query = query.where(turns.c.ended_at < plan.until)
        left = plan.limit
        with connection.execute(query.execution_options(yield_per=_PAGE)) as found:
            for (turn_id,) in found:
                if left == 0:
                    return
                if in_sample(turn_id, plan.share):
                    left = None if left is None else left - 1
                    yield turn_id

    def _take(self, connection: sa.Connection, run: AuditRun, turn_ids: Sequence[str]) -> int:
        """Note turns as the run's, but for those that another process has taken meanwhile; return how many it has."""
        insert = insert_or_change(connection.dialect.name, audit_turns).on_conflict_do_nothing()
        rows = [
            {
                "id": self._clock.new_id("audited"),
                "run_id": run.id,
                "turn_id": turn_id,
                "policy_version": run.policy_version,
                "state": "waiting",
                "attempts": 0,
                "created_at": run.created_at,
            }
            for turn_id in turn_ids
        ]
        if rows:
            connection.execute(insert, rows)
            self._replace(connection, run)
        count = sa.select(sa.func.count()).where(audit_turns.c.run_id == run.id)
        return connection.execute(count).scalar_one()

    def _replace(self, connection: sa.Connection, run: AuditRun) -> None:
        """Forget what was to be asked about the run's turns by other policies, and was not sent yet."""
        row, mine = audit_turns.c, audit_turns.alias("mine")
        sent = sa.exists().where(batch_claims.c.kind == KIND, batch_claims.c.subject_id == row.id)
        taken = sa.select(mine.c.turn_id).where(mine.c.run_id == run.id)
        old = sa.and_(row.state == "waiting", row.policy_version != run.policy_version, row.turn_id.in_(taken), ~sent)
        connection.execute(sa.delete(audit_turns).where(old))

    def _take_again(self, connection: sa.Connection, run: AuditRun, turn_ids: Sequence[str]) -> None:
        """Move those of the turns that earlier runs could not audit under the same policy to this one."""
        row = audit_turns.c
        again = {"run_id": run.id, "state": "waiting", "outcome": None, "attempts": 0, "error": None, "ended_at": None}
        move = sa.update(audit_turns).where(row.policy_version == run.policy_version, _UNANSWERED).values(**again)
        for first in range(0, len(turn_ids), _AT_ONCE):
            connection.execute(move.where(row.turn_id.in_(turn_ids[first : first + _AT_ONCE])))


def _is_all_simulated(connection: sa.Connection) -> bool:
    return connection.execute(sa.select(turns.c.id).where(turns.c.simulated.is_(False)).limit(1)).first() is None


def _runs(connection: sa.Connection, run_id: str | None) -> list[AuditRun]:
    runs = sa.select(audit_runs).order_by(audit_runs.c.created_at.desc(), audit_runs.c.id.desc())
    counts = sa.select(audit_turns.c.run_id, audit_turns.c.state, audit_turns.c.outcome, sa.func.count()).group_by(
        audit_turns.c.run_id, audit_turns.c.state, audit_turns.c.outcome
    )
    if run_id is not None:
        runs, counts = runs.where(audit_runs.c.id == run_id), counts.where(audit_turns.c.run_id == run_id)
    standing: dict[str, dict[str | None, int]] = {}
    for run, state, outcome, count in connection.execute(counts):
        standing.setdefault(run, {})[outcome if state == "ended" else None] = count
    found = []
    for row in connection.execute(runs).mappings():
        outcomes = standing.get(row["id"], {})
        waiting = outcomes.pop(None, 0)
        ended = {name: count for name, count in sorted(outcomes.items(), key=str) if name is not None}
        found.append(AuditRun(**row, waiting=waiting, outcomes=ended))
    return found
