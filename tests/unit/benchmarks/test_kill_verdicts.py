"""The benchmark of kills finds each way in which a turn has not exactly one verdict, and none in one that has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from benchmarks.kill_verdicts import LiveVerdict, RecordedCorrection, RecordedJudgement, judgement_contradictions
from guidance_agent.core.transcript import text_hash

TEXT = "A pot can be taken in several ways."
WHEN = datetime(2026, 11, 21, tzinfo=UTC)


def verdict(name: str = "verdict-1", *, passed: bool = False, of: str = TEXT) -> LiveVerdict:
    return LiveVerdict(name, text_hash(of), "policy", passed, WHEN)


def judged() -> RecordedJudgement:
    corrections = [RecordedCorrection("verdict-1", 4, 0, 5, "Some"), RecordedCorrection("verdict-1", 5, 35, 35, "More")]
    told = [{"type": "judged", "sequence": 3, "verdict_id": "verdict-1"}]
    told += [{"type": "corrected", "sequence": one.sequence, "verdict_id": "verdict-1"} for one in corrections]
    return RecordedJudgement("turn-1", len(TEXT), text_hash(TEXT), "failed", [verdict()], corrections, list(told))


def test_a_turn_with_one_verdict_and_one_without_text_have_none() -> None:
    passed = RecordedJudgement(
        "turn-2",
        len(TEXT),
        text_hash(TEXT),
        "passed",
        [verdict(passed=True)],
        told=[{"type": "judged", "sequence": 3, "verdict_id": "verdict-1"}],
    )
    nothing = RecordedJudgement("turn-3", 0, text_hash(""), None)
    assert [judgement_contradictions(turn) for turn in (judged(), passed, nothing)] == [[], [], []]


def told_twice(turn: RecordedJudgement) -> None:
    turn.told.append(turn.told[0])


def corrected_twice(turn: RecordedJudgement) -> None:
    turn.corrections.append(turn.corrections[0]._replace(sequence=6))
    turn.told.append({"type": "corrected", "sequence": 6})


def correction_told_twice(turn: RecordedJudgement) -> None:
    turn.told.append({"type": "corrected", "sequence": 6})


def other_verdicts_correction(turn: RecordedJudgement) -> None:
    turn.corrections[0] = turn.corrections[0]._replace(verdict_id="verdict-9")


def left_waiting(turn: RecordedJudgement) -> None:
    turn.judgement = "pending"


def two_verdicts(turn: RecordedJudgement) -> None:
    turn.verdicts.append(verdict("verdict-2"))


def none_given(turn: RecordedJudgement) -> None:
    turn.verdicts.clear()


def of_another_text(turn: RecordedJudgement) -> None:
    turn.verdicts[0] = verdict(of="other")


def passed_after_all(turn: RecordedJudgement) -> None:
    turn.judgement = "passed"


def delivered_nothing(turn: RecordedJudgement) -> None:
    turn.delivered_length = 0


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (left_waiting, "is left 'pending'"),
        (two_verdicts, "2 verdicts instead of one"),
        (two_verdicts, "two verdicts on one text"),
        (none_given, "0 verdicts instead of one"),
        (of_another_text, "on another text"),
        (told_twice, "verdict was not told once"),
        (passed_after_all, "not that of its verdict"),
        (passed_after_all, "an answer that passed"),
        (corrected_twice, "there twice"),
        (correction_told_twice, "not told once each"),
        (other_verdicts_correction, "no verdict of it"),
        (delivered_nothing, "although nothing was delivered"),
    ],
)
def test_each_contradiction_is_found(spoil: Callable[[RecordedJudgement], None], found: str) -> None:
    turn = judged()
    spoil(turn)
    assert any(found in what for what in judgement_contradictions(turn))
