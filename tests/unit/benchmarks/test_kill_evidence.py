"""The benchmark of kills finds each contradiction, and none in a turn that is as it should be."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.kill_evidence import RecordedTurn, contradictions
from guidance_agent.core.transcript import text_hash

TEXT = "A pot can be taken in several ways."
TYPES = {"completed": "completed", "process_died": "failed"}


def turn(state: str = "completed", **changes: Any) -> RecordedTurn:
    row = {
        "id": "turn-1",
        "state": state,
        "delivered_length": len(TEXT),
        "text_hash": text_hash(TEXT),
        "judgement": "pending",
        "last_sequence": 2,
    }
    return RecordedTurn(row | changes, [0, 1, 2], ["turn_started", "text_delta", TYPES[state]], TEXT)


@pytest.mark.parametrize("state", TYPES)
@pytest.mark.parametrize("shown", ["", TEXT[:7], TEXT])
def test_a_turn_that_is_as_it_should_be_has_none(state: str, shown: str) -> None:
    assert contradictions(turn(state), shown, None) == []


def test_a_turn_that_still_streams_needs_no_end() -> None:
    streaming = turn(delivered_length=None, text_hash=None, judgement=None, last_sequence=0)
    streaming.row["state"] = "streaming"
    assert contradictions(streaming, TEXT, None) == []


@pytest.mark.parametrize(
    ("changes", "shown", "found"),
    [
        ({}, "A pot cannot", "not a prefix"),
        ({}, TEXT + " More.", "not a prefix"),
        ({"delivered_length": None}, "", "how much was delivered"),
        ({"delivered_length": 3}, "A pot", "less is recorded"),
        ({"text_hash": text_hash("other")}, TEXT, "hash"),
        ({"judgement": None}, TEXT, "judgement"),
        ({"last_sequence": 1}, TEXT, "last number"),
    ],
)
def test_each_contradiction_is_found(changes: dict[str, Any], shown: str, found: str) -> None:
    assert any(found in what for what in contradictions(turn(**changes), shown, None))


def test_a_gap_a_missing_end_and_another_end_than_was_told_are_found() -> None:
    recorded = turn()
    recorded.sequences = [0, 2]
    recorded.types = ["turn_started", "text_delta"]
    found = contradictions(recorded, TEXT, "closed_early")
    assert [
        part for part in ("gaps", "not its end", "told 'closed_early'") if not any(part in what for what in found)
    ] == []


def test_a_turn_that_was_shown_and_is_not_on_record_is_found() -> None:
    assert contradictions(None, TEXT, None) == ["a turn that was shown is not on record"]


def test_a_dead_process_has_all_of_its_text_recorded_as_delivered() -> None:
    died = turn("process_died", delivered_length=5, text_hash=text_hash(TEXT[:5]))
    assert contradictions(died, "", None) == ["turn turn-1: a dead process's text is not recorded whole"]
