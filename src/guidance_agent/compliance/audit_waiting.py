"""One turn of an audit on its way: its row while it waits, its text, and what the rules have said of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guidance_agent.compliance.verdict import CheckResult, RulesRecord
from guidance_agent.core.delivered_text import DeliveredText, delivered_text
from guidance_agent.core.schema import verdicts
from guidance_agent.core.schema_audit import audit_runs, audit_turns
from guidance_agent.core.types import JsonObject
from guidance_agent.core.verdicts import LIVE

if TYPE_CHECKING:
    from guidance_agent.compliance.rule_results import ExaminedText

__all__ = [
    "WaitingSubject",
    "examined_as_json",
    "examined_from_json",
    "has_failed_live",
    "locked_subject",
    "subjects_with_texts",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingSubject:
    """A turn of a run that waits: where its verdict belongs, and what the rules have said of it."""

    id: str
    run_id: str
    turn_id: str
    policy_version: str
    attempts: int
    examined: JsonObject | None
    model: str


_COLUMNS = [audit_turns.c[name] for name in ("id", "run_id", "turn_id", "policy_version", "attempts", "examined")]
_WAITING = (
    sa.select(*_COLUMNS, audit_runs.c.model)
    .join(audit_runs, audit_runs.c.id == audit_turns.c.run_id)
    .where(audit_turns.c.state == "waiting")
)


@functools.cache
def _locked() -> sa.Select[Any]:
    # Built once: building it costs more than running it.
    return _WAITING.where(audit_turns.c.id == sa.bindparam("subject")).with_for_update(of=audit_turns)


def locked_subject(connection: sa.Connection, subject_id: str) -> WaitingSubject | None:
    """Return a subject that waits, with the lock of its row; None when it does not wait any more."""
    row = connection.execute(_locked(), {"subject": subject_id}).mappings().first()
    return None if row is None else WaitingSubject(**row)


def subjects_with_texts(
    connection: sa.Connection, subject_ids: Sequence[str]
) -> list[tuple[WaitingSubject, DeliveredText | None]]:
    """Return those of the subjects that wait, each with its delivered text; None where that is gone."""
    rows = connection.execute(_WAITING.where(audit_turns.c.id.in_(subject_ids))).mappings().all()
    return [(WaitingSubject(**row), delivered_text(connection, row["turn_id"])) for row in rows]


def has_failed_live(connection: sa.Connection, turn_id: str) -> bool:
    """Whether the live verdict did not pass either: then a person has been asked already."""
    query = sa.select(verdicts.c.passed).where(verdicts.c.turn_id == turn_id, verdicts.c.purpose == LIVE)
    newest = connection.execute(query.order_by(verdicts.c.created_at.desc(), verdicts.c.id.desc()).limit(1)).scalar()
    return newest is False


def examined_as_json(examined: ExaminedText) -> JsonObject:
    """Return what the rules said as it is kept with a subject."""
    return {
        "discusses_decision": examined.discusses_decision,
        "breaches": [breach.model_dump(mode="json") for breach in examined.breaches],
        "record": examined.record.model_dump(mode="json"),
    }


def examined_from_json(kept: JsonObject) -> ExaminedText:
    """Return what `examined_as_json` wrote."""
    from guidance_agent.compliance.rule_results import ExaminedText

    return ExaminedText(
        discusses_decision=kept["discusses_decision"],
        breaches=tuple(CheckResult.model_validate(breach) for breach in kept["breaches"]),
        record=RulesRecord.model_validate(kept["record"]),
    )
