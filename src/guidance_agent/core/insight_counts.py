"""What a day's turns come to in numbers: everything that an insight report counts, counted here and by no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from guidance_agent.core.insight_days import day_bounds
from guidance_agent.core.schema import (
    consultations,
    corrections,
    gate_actions,
    reviews,
    rule_releases,
    rules,
    turns,
    verdicts,
)

__all__ = ["RULE_DAYS", "DayCounts", "RuleEffect", "VerdictRate", "VersionRate", "count_day"]

RULE_DAYS = 28
"""Over how many days, with the reported one as the last, verdicts with and without rules are compared."""

_IDS_AT_ONCE = 500


class _Counts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VerdictRate(_Counts):
    """How many answers passed and failed; those without a verdict are in neither."""

    passed: int = 0
    failed: int = 0

    @property
    def judged(self) -> int:
        return self.passed + self.failed

    @property
    def failed_share(self) -> float | None:
        """The share that failed, from 0 to 1; None where nothing was judged."""
        return self.failed / self.judged if self.judged else None


class VersionRate(_Counts):
    """The verdicts on answers that were written with one version of the rules; version 0 has none."""

    version: int
    rate: VerdictRate


class RuleEffect(_Counts):
    """The verdicts on answers that were written while a rule stood in the prompt, and on the others."""

    rule_id: str
    text: str
    with_rule: VerdictRate
    without_rule: VerdictRate


class DayCounts(_Counts):
    """What the program counted of a day.

    Attributes:
        states: How turns ended.
        judgements: How they were judged; `nothing_delivered` for those with nothing to judge.
        failed_checks: In how many turns each check failed, by the verdict on what was shown.
        errors: Which errors ended turns.
        gate_actions: What the gate did, by action and then by check; without a check under an empty name.
        outcomes: How the consultations stand.
        read: How many consultations have a note; `topics` and `causes` count its labels.
        versions: Verdicts of the last `RULE_DAYS` days by version of the rules, the oldest version first.
        rules: The same for each rule of the newest version.
    """

    consultations: int
    turns: int
    simulated_turns: int
    states: dict[str, int]
    judgements: dict[str, int]
    failed_checks: dict[str, int]
    errors: dict[str, int]
    gate_actions: dict[str, dict[str, int]]
    outcomes: dict[str, int]
    corrections: int
    reviews: int
    read: int = 0
    topics: dict[str, int] = {}
    causes: dict[str, int] = {}
    versions: tuple[VersionRate, ...] = ()
    rules: tuple[RuleEffect, ...] = ()


def count_day(connection: sa.Connection, day: date, turn_ids: Sequence[str], *, include_simulated: bool) -> DayCounts:
    """Count what these turns of a day come to."""
    rows = _of_turns(
        connection,
        sa.select(turns.c.consultation_id, turns.c.state, turns.c.judgement, turns.c.error, turns.c.simulated),
        turns.c.id,
        turn_ids,
    )
    failed = sa.select(verdicts.c.verdict).join(turns, turns.c.id == verdicts.c.turn_id)
    failed = failed.where(verdicts.c.purpose == "live", turns.c.judgement == "failed")
    gate = sa.select(gate_actions.c.action, gate_actions.c.check)
    consultation_ids = sorted({row.consultation_id for row in rows})
    outcomes = _of_turns(connection, sa.select(consultations.c.outcome), consultations.c.id, consultation_ids)
    actions: dict[str, Counter[str]] = {}
    for row in _of_turns(connection, gate, gate_actions.c.turn_id, turn_ids):
        actions.setdefault(row.action, Counter())[row.check or ""] += 1
    checks: Counter[str] = Counter()
    for row in _of_turns(connection, failed, verdicts.c.turn_id, turn_ids):
        checks.update({each["check"] for each in row.verdict["checks"] if each["status"] == "fail"})
    versions = _versions(connection, day, include_simulated=include_simulated)
    return DayCounts(
        consultations=len(consultation_ids),
        turns=len(rows),
        simulated_turns=sum(row.simulated for row in rows),
        states=_sorted(Counter(row.state for row in rows)),
        judgements=_sorted(Counter(row.judgement or "nothing_delivered" for row in rows)),
        failed_checks=_sorted(checks),
        errors=_sorted(Counter(row.error.partition(":")[0] for row in rows if row.error)),
        gate_actions={action: _sorted(actions[action]) for action in sorted(actions)},
        outcomes=_sorted(Counter(row.outcome for row in outcomes)),
        corrections=len(_of_turns(connection, sa.select(corrections.c.id), corrections.c.turn_id, turn_ids)),
        reviews=len(_of_turns(connection, sa.select(reviews.c.id), reviews.c.turn_id, turn_ids)),
        versions=tuple(VersionRate(version=version, rate=versions[version]) for version in sorted(versions)),
        rules=tuple(_effects(connection, versions)),
    )


def _versions(connection: sa.Connection, day: date, *, include_simulated: bool) -> dict[int, VerdictRate]:
    """Return the verdicts of the last weeks by the version of the rules that the answers were written with."""
    begin, end = day_bounds(day - timedelta(days=RULE_DAYS - 1))[0], day_bounds(day)[1]
    version = sa.func.coalesce(turns.c.context["rules_version"].as_integer(), 0).label("version")
    query = (
        sa.select(version, turns.c.judgement, sa.func.count())
        .where(turns.c.ended_at >= begin, turns.c.ended_at < end, turns.c.judgement.in_(("passed", "failed")))
        .group_by(version, turns.c.judgement)
    )
    if not include_simulated:
        query = query.where(turns.c.simulated.is_(False))
    counted: dict[int, dict[str, int]] = {}
    for at, judgement, count in connection.execute(query):
        counted.setdefault(at, {})[judgement] = count
    return {at: VerdictRate(**counts) for at, counts in counted.items()}


def _effects(connection: sa.Connection, versions: Mapping[int, VerdictRate]) -> Iterable[RuleEffect]:
    latest = sa.select(rule_releases.c.version, rule_releases.c.rule_ids).order_by(rule_releases.c.version.desc())
    releases = {row.version: set(row.rule_ids) for row in connection.execute(latest)}
    if not releases:
        return
    names = sa.select(rules.c.id, rules.c.text).where(rules.c.id.in_(sorted(releases[max(releases)])))
    for rule_id, text in connection.execute(names.order_by(rules.c.id)):
        having = [at for at in versions if rule_id in releases.get(at, ())]
        yield RuleEffect(
            rule_id=rule_id,
            text=text,
            with_rule=_summed(versions[at] for at in having),
            without_rule=_summed(rate for at, rate in versions.items() if at not in having),
        )


def _summed(rates: Iterable[VerdictRate]) -> VerdictRate:
    found = list(rates)
    return VerdictRate(passed=sum(each.passed for each in found), failed=sum(each.failed for each in found))


def _of_turns(
    connection: sa.Connection, query: sa.Select[Any], column: sa.ColumnElement[str], ids: Sequence[str]
) -> list[sa.Row[Any]]:
    found: list[sa.Row[Any]] = []
    for first in range(0, len(ids), _IDS_AT_ONCE):
        found += connection.execute(query.where(column.in_(ids[first : first + _IDS_AT_ONCE]))).all()
    return found


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
