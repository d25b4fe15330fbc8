"""What answers say of the rules that they were given with, reported by the program.

A rule was in play in an answer when it stood in its prompt, by the release that the turn's record names, and was among
the few that the retriever found nearest to the question. Of such a rule an answer is told once:

    harmed    the standing verdict fails the requirement that the rule was made for: it did not prevent that
    helped    the check of that requirement passed
    nothing   the check was not applicable, or failed for another requirement

Every answer is looked at once, when its verdict stands: passed, or failed and upheld or not looked at for a day. What
a simulated answer shows is counted for simulated rules alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guidance_agent.compliance.judge_checks import judge_checks
from guidance_agent.compliance.verdict import Verdict
from guidance_agent.core.bulk import insert_or_change
from guidance_agent.core.schema import rule_releases, turn_lessons, turns
from guidance_agent.core.verdicts import VerdictRecords
from guidance_agent.learning.failures import being_reviewed

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database
    from guidance_agent.learning.confidence import FeedbackOutcome
    from guidance_agent.learning.rule_records import Rule
    from guidance_agent.learning.rules import RulesBase

__all__ = ["RuleFeedback", "outcome_for"]

_LESSON = "rules"
_AT_ONCE = 500


def outcome_for(requirement: str, verdict: Verdict) -> FeedbackOutcome | None:
    """Return what a verdict says of a rule that was made for a requirement; None where it says nothing."""
    if any(failure.requirement == requirement for failure in verdict.failures):
        return "harmed"
    about = {name for name, check in judge_checks().items() if requirement in check.requirements}
    statuses = [result.status for result in verdict.checks if result.check in about]
    passed = verdict.unreadable is None and bool(statuses) and all(status == "pass" for status in statuses)
    return "helped" if passed else None


class RuleFeedback:
    """Reports on released rules from verdicts. May run in several processes.

    Args:
        database: The records.
        clock: Times.
        rules: The rules.
    """

    def __init__(self, database: Database, clock: Clock, rules: RulesBase) -> None:
        self._database = database
        self._clock = clock
        self._rules = rules
        self._verdicts = VerdictRecords(database, clock)

    async def report(self) -> int:
        """Look at every judged answer that was given with released rules and was not looked at; returns how many."""
        looked_at = 0
        while found := await self._unreported():
            known = {rule.id: rule for rule in await self._rules.rules()}
            releases = await self._releases()
            for turn in found:
                outcomes = await self._outcomes(turn, known, releases)
                looked_at += await self._database.transaction(partial(self._write, turn_id=turn.id, outcomes=outcomes))
        return looked_at

    async def _outcomes(
        self, turn: Any, known: dict[str, Rule], releases: dict[int, frozenset[str]]
    ) -> dict[str, FeedbackOutcome]:
        in_prompt = releases.get(turn.context["rules_version"], frozenset())
        in_play = [known[each] for each in turn.context.get("rules", ()) if each in in_prompt and each in known]
        usable = [rule for rule in in_play if rule.evidence and (rule.simulated or not turn.simulated)]
        if not usable:
            return {}
        stored = await self._verdicts.standing_verdict(turn.id)
        if stored is None:
            return {}
        verdict = Verdict.model_validate(stored.verdict)
        told = {rule.id: outcome_for(rule.evidence[0]["requirement"], verdict) for rule in usable}
        return {rule_id: outcome for rule_id, outcome in told.items() if outcome is not None}

    def _write(self, connection: sa.Connection, turn_id: str, outcomes: dict[str, FeedbackOutcome]) -> int:
        row = {"turn_id": turn_id, "kind": _LESSON, "result": outcomes, "created_at": self._clock.now()}
        insert = insert_or_change(connection.dialect.name, turn_lessons).values(row)
        inserted = insert.on_conflict_do_nothing().returning(turn_lessons.c.turn_id)
        if connection.execute(inserted).first() is None:
            return 0
        # In one order for all processes, because each rule is locked until the transaction ends.
        for rule_id in sorted(outcomes):
            self._rules.note_feedback(
                connection, rule_id, outcomes[rule_id], turn_id=turn_id, reason="by the verdict on the answer"
            )
        return 1

    async def _unreported(self) -> Sequence[Any]:
        done = sa.exists().where(turn_lessons.c.turn_id == turns.c.id, turn_lessons.c.kind == _LESSON)
        query = (
            sa.select(turns.c.id, turns.c.context, turns.c.simulated)
            .where(
                turns.c.judgement.in_(("passed", "failed")),
                turns.c.state != "streaming",
                turns.c.context["rules_version"].as_integer() > 0,
                ~being_reviewed(self._clock),
                ~done,
            )
            .order_by(turns.c.ended_at, turns.c.id)
            .limit(_AT_ONCE)
        )
        return await self._database.run(lambda connection: connection.execute(query).all())

    async def _releases(self) -> dict[int, frozenset[str]]:
        query = sa.select(rule_releases.c.version, rule_releases.c.rule_ids)
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        return {row.version: frozenset(row.rule_ids) for row in rows}
