"""The rules base: drafts with their evidence, releases, rollback, and what experience says of each rule.

A rule is a draft until a release holds it. The prompt changes with a release and with nothing else: drafts, merged
evidence, feedback and retirement wait for the next one. A release is a new version after its rules have passed the
check set; a rollback is a new version with the rules of an old one. Nothing is deleted and no text of a rule changes,
so that what a version said can be read for as long as the records last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guidance_agent.advisor.prompts import ReleasedRule, ReleasedRules
from guidance_agent.core.schema import rule_events, rule_releases, rules
from guidance_agent.core.types import JsonObject
from guidance_agent.errors import RuleChangeError, UnknownRuleError
from guidance_agent.learning.check_set import CheckSet, failed_cases
from guidance_agent.learning.confidence import RELEASED_FROM, RETIRED_BELOW, FeedbackOutcome, updated
from guidance_agent.learning.duplicates import duplicate_of
from guidance_agent.learning.released import released_rules
from guidance_agent.learning.rule_checks import RuleChecks
from guidance_agent.learning.rule_records import (
    Drafted,
    Evidence,
    PreparedRule,
    Release,
    ReleaseResult,
    Rule,
    RuleEvent,
    RuleStatus,
)
from guidance_agent.retrieval.hashed import HashedEmbedder
from guidance_agent.retrieval.vectors import QueryVector, embedding_columns

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database
    from guidance_agent.knowledge.loader import Knowledge
    from guidance_agent.retrieval.embeddings import Embedder

__all__ = ["MOST_RELEASED", "RulesBase"]

MOST_RELEASED = 40
"""Rules of a release at most, the surest first: each stands in every prompt."""


class RulesBase:
    """The learned rules. Raises `DatabaseUnavailableError` when the database cannot be used.

    Args:
        database: The records.
        clock: Times, the day, and ids.
        knowledge: What the checks of rules compare figures with.
        embedder: Makes the vectors by which a question finds rules; None is the offline one.
        include_simulated: Whether rules that a simulated model led to may be released; only where all is simulated.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        knowledge: Knowledge,
        embedder: Embedder | None = None,
        *,
        include_simulated: bool = False,
    ) -> None:
        self._database = database
        self._clock = clock
        self._embedder = embedder or HashedEmbedder()
        self._checks = RuleChecks(knowledge)
        self._include_simulated = include_simulated

    @property
    def embedder(self) -> Embedder:
        """What makes the vectors of rules, and of everything that questions are compared with."""
        return self._embedder

    async def rules(self, *, statuses: Collection[RuleStatus] = ()) -> tuple[Rule, ...]:
        """Return the rules, oldest first; only those of some statuses where these are named."""
        query = sa.select(*_COLUMNS).order_by(rules.c.created_at, rules.c.id)
        if statuses:
            query = query.where(rules.c.status.in_(sorted(statuses)))
        rows = await self._database.run(lambda connection: connection.execute(query).mappings().all())
        return tuple(_rule(row) for row in rows)

    async def rule(self, rule_id: str) -> Rule:
        """Return a rule; raise `UnknownRuleError` when there is none with this id."""
        return await self._database.run(lambda connection: _find(connection, rule_id))

    async def history(self, rule_id: str) -> tuple[RuleEvent, ...]:
        """Return what happened to a rule, oldest first; raise `UnknownRuleError` when there is none."""
        await self.rule(rule_id)
        columns = [rule_events.c[name] for name in ("number", "kind", "status", "confidence", "detail", "created_at")]
        query = sa.select(*columns).where(rule_events.c.rule_id == rule_id).order_by(rule_events.c.number)
        rows = await self._database.run(lambda connection: connection.execute(query).mappings().all())
        return tuple(RuleEvent(**row) for row in rows)

    async def releases(self) -> tuple[Release, ...]:
        """Return the versions, the latest first."""
        query = sa.select(rule_releases).order_by(rule_releases.c.version.desc())
        rows = await self._database.run(lambda connection: connection.execute(query).mappings().all())
        return tuple(Release(**{**row, "rule_ids": tuple(row["rule_ids"])}) for row in rows)

    async def released(self, version: int | None = None) -> ReleasedRules:
        """Return the rules of a release as the prompt shows them, of the latest where none is named."""
        return await released_rules(self._database, include_simulated=self._include_simulated, version=version)

    async def make_ready(
        self,
        text: str,
        *,
        confidence: float,
        evidence: Evidence,
        names: Sequence[str] = (),
        simulated: bool = False,
    ) -> PreparedRule:
        """Check and embed a rule, so that `store` needs nothing but a connection.

        Args:
            text: The rule.
            confidence: Where it begins, from 0 to 1.
            evidence: Where it comes from.
            names: The customer in whose consultation it was learned, and whom they told of; see `people_of`.
            simulated: Whether a simulated model had a part in it.
        """
        line = " ".join(text.split())
        findings = await asyncio.to_thread(self._checks.examine, line, on=self._clock.today(), names=names)
        columns: JsonObject = {}
        if not findings:
            vectors = await self._embedder.embed([line])
            columns = embedding_columns(QueryVector(self._embedder.model, vectors[0]))
        return PreparedRule(
            text=line,
            confidence=confidence,
            evidence=evidence,
            findings=findings,
            columns=columns,
            simulated=simulated,
        )

    def store(self, connection: sa.Connection, prepared: PreparedRule) -> Drafted:
        """Store a prepared rule as a draft, or its evidence with the rule that says the same.

        Evidence of one failure counts once for a rule. Where the rule is a draft, it makes it surer; a released one
        has not prevented this failure, so it does not. A retired one takes the evidence and stays retired.
        """
        if prepared.findings:
            return Drafted(outcome="refused", findings=prepared.findings)
        _lock(connection)
        known = connection.execute(
            sa.select(*_COLUMNS).where(rules.c.simulated == prepared.simulated).order_by(rules.c.created_at, rules.c.id)
        )
        others = [_rule(row) for row in known.mappings()]
        place = duplicate_of(prepared.text, [rule.text for rule in others])
        now, new = self._clock.now(), prepared.evidence.to_json()
        if place is None:
            rule_id = self._clock.new_id("rule")
            connection.execute(
                sa.insert(rules).values(
                    id=rule_id,
                    text=prepared.text,
                    confidence=prepared.confidence,
                    status="draft",
                    evidence=[new],
                    created_at=now,
                    simulated=prepared.simulated,
                    **prepared.columns,
                )
            )
            self._note(connection, rule_id, "drafted", "draft", prepared.confidence, {"turn_id": new["turn_id"]})
            return Drafted(outcome="draft", rule_id=rule_id)
        rule = others[place]
        if all(each["turn_id"] != new["turn_id"] for each in rule.evidence):
            confidence = updated(rule.confidence, "helped") if rule.status == "draft" else rule.confidence
            change = sa.update(rules).where(rules.c.id == rule.id)
            connection.execute(change.values(evidence=[*rule.evidence, new], confidence=confidence))
            detail = {"turn_id": new["turn_id"], "text": prepared.text}
            self._note(connection, rule.id, "merged", rule.status, confidence, detail)
        return Drafted(outcome="merged", rule_id=rule.id)

    async def draft(
        self,
        text: str,
        *,
        confidence: float,
        evidence: Evidence,
        names: Sequence[str] = (),
        simulated: bool = False,
    ) -> Drafted:
        """Check, embed and store a rule; see `make_ready` and `store`."""
        prepared = await self.make_ready(
            text, confidence=confidence, evidence=evidence, names=names, simulated=simulated
        )
        return await self._database.transaction(lambda connection: self.store(connection, prepared))

    async def feedback(
        self, rule_id: str, outcome: FeedbackOutcome, *, turn_id: str | None = None, reason: str = ""
    ) -> Rule:
        """Move a rule's confidence by one piece of experience, and retire it when it falls too low.

        Args:
            rule_id: The rule.
            outcome: Whether it helped or harmed.
            turn_id: The answer that showed it; the same answer counts once for a rule, as it was told first.
            reason: Why, for the history.

        Raises:
            UnknownRuleError: when there is no such rule.
        """

        return await self._database.transaction(
            lambda connection: self.note_feedback(connection, rule_id, outcome, turn_id=turn_id, reason=reason)
        )

    def note_feedback(
        self, connection: sa.Connection, rule_id: str, outcome: FeedbackOutcome, *, turn_id: str | None, reason: str
    ) -> Rule:
        """Do what `feedback` does, in a transaction of others."""
        rule = _find(connection, rule_id, lock=True)
        if turn_id is not None and _has_heard(connection, rule_id, turn_id):
            return rule
        confidence = updated(rule.confidence, outcome)
        falls = confidence < RETIRED_BELOW and rule.status != "retired"
        status: RuleStatus = "retired" if falls else rule.status
        connection.execute(sa.update(rules).where(rules.c.id == rule_id).values(confidence=confidence, status=status))
        detail = {"outcome": outcome, "turn_id": turn_id, "reason": reason}
        self._note(connection, rule_id, "feedback", rule.status, confidence, detail)
        if falls:
            self._note(connection, rule_id, "retired", "retired", confidence, {"reason": "low confidence"})
        return _find(connection, rule_id)

    async def retire(self, rule_id: str, *, reason: str) -> Rule:
        """Retire a rule: the next release leaves it out. Raises `UnknownRuleError` when there is none."""

        def write(connection: sa.Connection) -> Rule:
            rule = _find(connection, rule_id, lock=True)
            if rule.status != "retired":
                connection.execute(sa.update(rules).where(rules.c.id == rule_id).values(status="retired"))
                self._note(connection, rule_id, "retired", "retired", rule.confidence, {"reason": reason})
            return _find(connection, rule_id)

        return await self._database.transaction(write)

    async def release(
        self, check_set: CheckSet, *, rule_ids: Collection[str] | None = None, note: str = ""
    ) -> ReleaseResult:
        """Make a version of the rules in force and of drafts, once it has passed the check set.

        Args:
            check_set: What the answers are checked on; the failures behind new rules are added to it.
            rule_ids: The drafts that are released; None takes those that are sure enough.
            note: What the version is for.

        Raises:
            UnknownRuleError: a rule is named that there is not.
            RuleChangeError: a retired or simulated rule is named, or another version was released meanwhile.
            ModelError: the check set could not be answered; nothing has changed.
        """
        base = await self._latest()
        in_force = [] if base is None else list(base.rule_ids)
        chosen = await self._chosen(in_force, rule_ids)
        ids = tuple(rule.id for rule in chosen)
        added = tuple(each for each in ids if each not in in_force)
        removed = tuple(each for each in in_force if each not in ids)
        if not added and not removed:
            return ReleaseResult(release=None, reason="There is nothing to release.")
        refused = [rule.id for rule in chosen if await self._is_refused(rule)]
        if refused:
            reason = f"The checks of today refuse {', '.join(refused)}. Retire them, or name others."
            return ReleaseResult(release=None, reason=reason, added=added, removed=removed)
        number = 1 if base is None else base.version + 1
        new = ReleasedRules(number, tuple(ReleasedRule(rule.id, rule.text) for rule in chosen))
        turns = [each["turn_id"] for rule in chosen if rule.id in added for each in rule.evidence]
        cases = await failed_cases(self._database, turns)
        before = await check_set.run(await self.released(), cases=cases)
        after = await check_set.run(new, cases=cases)
        worse = after.worse_than(before)
        release: Release | None = None
        reason = f"With these rules answers are worse: {', '.join(worse)}."
        if not worse:
            detail = {"version": number, "questions": len(after.answers), "failed": list(after.failed)}
            release = await self._write(number, ids, note, base, kind="released", detail=detail)
            reason = ""
        return ReleaseResult(
            release=release, reason=reason, added=added, removed=removed, before=before, after=after, worse=worse
        )

    async def rollback(self, version: int, *, note: str = "") -> Release:
        """Make a version with the rules of an earlier one, 0 for none, without those that are retired since.

        Raises:
            UnknownRuleError: there is no such version.
            RuleChangeError: another version was released meanwhile.
        """
        found = {release.version: release for release in await self.releases()}
        if version != 0 and version not in found:
            raise UnknownRuleError(
                f"There is no version {version} of the rules. The latest is {max(found, default=0)}; 0 has no rules."
            )
        wanted = found[version].rule_ids if version else ()
        usable = {rule.id for rule in await self.rules(statuses=("draft", "released"))}
        base = found[max(found)] if found else None
        ids = tuple(each for each in wanted if each in usable)
        number = 1 if base is None else base.version + 1
        why = note or f"back to version {version}"
        return await self._write(number, ids, why, base, kind="rolled_back", detail={"version": number, "to": version})

    async def _latest(self) -> Release | None:
        found = await self.releases()
        return found[0] if found else None

    async def _is_refused(self, rule: Rule) -> bool:
        return bool(await asyncio.to_thread(self._checks.examine, rule.text, on=self._clock.today()))

    async def _chosen(self, in_force: Sequence[str], rule_ids: Collection[str] | None) -> list[Rule]:
        known = {rule.id: rule for rule in await self.rules()}
        for each in rule_ids or ():
            rule = known.get(each)
            if rule is None:
                raise UnknownRuleError(f"There is no rule {each!r}. `guidance-agent rules list` shows which there are.")
            if rule.status == "retired":
                raise RuleChangeError(f"The rule {each!r} is retired, and no release takes it up again.")
            if rule.simulated and not self._include_simulated:
                raise RuleChangeError(f"The rule {each!r} is a simulated model's, and these answers are not simulated.")
        wanted = [
            rule
            for rule in known.values()
            if rule.status != "retired"
            and (self._include_simulated or not rule.simulated)
            and (rule.id in in_force or (rule.confidence >= RELEASED_FROM if rule_ids is None else rule.id in rule_ids))
        ]
        surest = sorted(wanted, key=lambda rule: -rule.confidence)[:MOST_RELEASED]
        return [rule for rule in wanted if rule in surest]

    async def _write(
        self, number: int, ids: tuple[str, ...], note: str, base: Release | None, *, kind: str, detail: JsonObject
    ) -> Release:
        def write(connection: sa.Connection) -> Release:
            _lock(connection)
            latest = connection.execute(sa.select(sa.func.max(rule_releases.c.version))).scalar_one()
            if latest != (None if base is None else base.version):
                raise RuleChangeError("Another version of the rules was made meanwhile. Look at it, then try again.")
            now = self._clock.now()
            row = {"version": number, "released_at": now, "rule_ids": list(ids), "note": note}
            connection.execute(sa.insert(rule_releases).values(**row))
            for rule in map(_rule, connection.execute(sa.select(*_COLUMNS)).mappings().all()):
                if rule.id not in ids and rule.status != "released":
                    continue
                status: RuleStatus = "released" if rule.id in ids else "draft"
                if status != rule.status:
                    connection.execute(sa.update(rules).where(rules.c.id == rule.id).values(status=status))
                    moved = kind if rule.id in ids else "left_out"
                    self._note(connection, rule.id, moved, status, rule.confidence, detail)
            return Release(version=number, released_at=now, rule_ids=ids, note=note)

        return await self._database.transaction(write)

    def _note(
        self,
        connection: sa.Connection,
        rule_id: str,
        kind: str,
        status: RuleStatus,
        confidence: float,
        detail: JsonObject,
    ) -> None:
        last = sa.select(sa.func.max(rule_events.c.number)).where(rule_events.c.rule_id == rule_id)
        number = (connection.execute(last).scalar_one() or 0) + 1
        connection.execute(
            sa.insert(rule_events).values(
                id=self._clock.new_id("rule-event"),
                rule_id=rule_id,
                number=number,
                kind=kind,
                status=status,
                confidence=confidence,
                detail=detail,
                created_at=self._clock.now(),
            )
        )


_COLUMNS = tuple(
    rules.c[name] for name in ("id", "text", "confidence", "status", "evidence", "created_at", "simulated")
)


def _rule(row: Any) -> Rule:
    return Rule(**{**row, "evidence": tuple(row["evidence"])})


def _find(connection: sa.Connection, rule_id: str, *, lock: bool = False) -> Rule:
    query = sa.select(*_COLUMNS).where(rules.c.id == rule_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise UnknownRuleError(f"There is no rule {rule_id!r}. `guidance-agent rules list` shows which there are.")
    return _rule(row)


def _has_heard(connection: sa.Connection, rule_id: str, turn_id: str) -> bool:
    told = sa.select(rule_events.c.id).where(
        rule_events.c.rule_id == rule_id,
        rule_events.c.kind == "feedback",
        rule_events.c.detail["turn_id"].as_string() == turn_id,
    )
    return connection.execute(told.limit(1)).first() is not None


def _lock(connection: sa.Connection) -> None:
    """Let no other process add or release rules before this transaction ends; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("LOCK TABLE rules IN SHARE ROW EXCLUSIVE MODE"))
