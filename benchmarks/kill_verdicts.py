"""What the records hold of verdicts after processes that judge were killed, and what must be true of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.database import Database
from guidance_agent.core.schema import corrections, turn_events, turns, verdicts
from guidance_agent.core.types import JsonObject
from guidance_agent.core.verdicts import LIVE

__all__ = ["LiveVerdict", "RecordedCorrection", "RecordedJudgement", "judgement_contradictions", "recorded_judgements"]


class LiveVerdict(NamedTuple):
    """A verdict on what a customer was shown."""

    id: str
    text_hash: str
    policy_version: str
    passed: bool
    created_at: datetime


class RecordedCorrection(NamedTuple):
    """A correction, as its row has it: where it stands among the turn's events, and what it says of which words."""

    verdict_id: str
    sequence: int
    start: int
    end: int
    replacement: str


@dataclass(slots=True)
class RecordedJudgement:
    """A turn that has ended, its verdicts and corrections, and the events that tell of them."""

    turn_id: str
    delivered_length: int | None
    text_hash: str | None
    judgement: str | None
    verdicts: list[LiveVerdict] = field(default_factory=list)
    corrections: list[RecordedCorrection] = field(default_factory=list)
    told: list[JsonObject] = field(default_factory=list)

    @property
    def times_told(self) -> int:
        """How many events tell of a verdict."""
        return sum(event["type"] == "judged" for event in self.told)


async def recorded_judgements(database: Database) -> dict[str, RecordedJudgement]:
    """Return every turn that has ended, by its id, with all that followed from its verdict."""
    ended = sa.select(turns.c.id, turns.c.delivered_length, turns.c.text_hash, turns.c.judgement)
    given = sa.select(
        verdicts.c.turn_id,
        verdicts.c.id,
        verdicts.c.text_hash,
        verdicts.c.policy_version,
        verdicts.c.passed,
        verdicts.c.created_at,
    ).where(verdicts.c.purpose == LIVE)
    corrected = sa.select(
        corrections.c.turn_id,
        corrections.c.verdict_id,
        corrections.c.sequence,
        corrections.c.span_start,
        corrections.c.span_end,
        corrections.c.replacement,
    )
    told = (
        sa.select(turn_events.c.turn_id, turn_events.c.payload)
        .where(turn_events.c.type.in_(("judged", "corrected")))
        .order_by(turn_events.c.sequence)
    )

    def read(connection: sa.Connection) -> dict[str, RecordedJudgement]:
        rows = connection.execute(ended.where(turns.c.state != "streaming"))
        found = {row.id: RecordedJudgement(*row) for row in rows}
        for turn_id, *values in connection.execute(given):
            found[turn_id].verdicts.append(LiveVerdict(*values))
        for turn_id, *values in connection.execute(corrected):
            found[turn_id].corrections.append(RecordedCorrection(*values))
        for turn_id, payload in connection.execute(told):
            found[turn_id].told.append(payload)
        return found

    return await database.run(read)


def judgement_contradictions(turn: RecordedJudgement) -> list[str]:
    """Return what must not be of a turn once nothing waits any more: one verdict, told once, and corrections once."""
    if not turn.delivered_length:
        wrong = {"judged although nothing was delivered": bool(turn.verdicts or turn.told or turn.judgement)}
    else:
        wrong = _wrong_verdict(turn) | _wrong_corrections(turn)
    return [f"turn {turn.turn_id}: {what}" for what, is_so in wrong.items() if is_so]


def _wrong_verdict(turn: RecordedJudgement) -> dict[str, bool]:
    given = Counter((verdict.text_hash, verdict.policy_version) for verdict in turn.verdicts)
    passed = {verdict.passed for verdict in turn.verdicts}
    return {
        f"was delivered, and is left {turn.judgement!r}": turn.judgement not in ("passed", "failed"),
        f"{len(turn.verdicts)} verdicts instead of one": len(turn.verdicts) != 1,
        "two verdicts on one text by one policy": any(number > 1 for number in given.values()),
        "a verdict on another text": any(verdict.text_hash != turn.text_hash for verdict in turn.verdicts),
        "its judgement is not that of its verdict": passed != {turn.judgement == "passed"},
        "its verdict was not told once": _told(turn.told, "judged", "verdict_id")
        != [verdict.id for verdict in turn.verdicts],
    }


def _wrong_corrections(turn: RecordedJudgement) -> dict[str, bool]:
    said = Counter((one.start, one.end, one.replacement) for one in turn.corrections)
    numbers = sorted(one.sequence for one in turn.corrections)
    return {
        "a correction is there twice": any(number > 1 for number in said.values()),
        "a correction of an answer that passed": turn.judgement == "passed" and bool(turn.corrections),
        "a correction that follows from no verdict of it": not {one.verdict_id for one in turn.corrections}
        <= {verdict.id for verdict in turn.verdicts},
        "its corrections were not told once each": _told(turn.told, "corrected", "sequence") != numbers,
    }


def _told(events: Sequence[JsonObject], kind: str, name: str) -> list[Any]:
    return [event[name] for event in events if event["type"] == kind]
