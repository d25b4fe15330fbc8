"""A simulated model that is asked for evidence names what it was shown, and nothing else."""

from __future__ import annotations

from typing import Any

from guidance_agent.provider_simulator.answers.citations import cite

MESSAGE = """The code of the block is 0123456789abcdef.

[a1b2c3d4] 2026-11-01
Can I take it all?

[b2c3d4e5] 2026-11-02
Is it taxed?
"""


def test_evidence_is_among_what_was_shown_and_the_text_reports_it() -> None:
    value: dict[str, Any] = {"reflections": [{"evidence": ["made up"], "text": "…", "importance": 4}]}
    cite(value, MESSAGE)
    (made,) = value["reflections"]
    assert made == {"evidence": ["a1b2c3d4", "b2c3d4e5"], "text": "Asked “Can I take it all”", "importance": 4}


def test_words_about_entries_say_that_they_are_simulated() -> None:
    value: dict[str, Any] = {"summary": "…", "topics": [{"topic": "tax", "words": "…", "evidence": []}]}
    cite(value, MESSAGE)
    assert value["summary"].startswith("Simulated words")
    assert value["topics"][0]["words"].startswith("Simulated words")


def test_nothing_changes_where_no_code_was_shown_or_no_evidence_is_asked_for() -> None:
    for value, message in (({"evidence": ["x"], "text": "y"}, "No codes."), ({"text": "y", "summary": "z"}, MESSAGE)):
        before = dict(value)
        cite(value, message)
        assert value == before
