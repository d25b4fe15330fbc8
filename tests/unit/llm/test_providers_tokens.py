"""Estimates of token counts, against what providers counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guidance_agent.llm.tokens import estimate_tokens

RECORDINGS = Path(__file__).parents[4] / "shared" / "recordings"
CLAUDE_FACTOR = 1.15


def recorded_answers() -> list[tuple[str, str, int]]:
    """Provider, text and counted tokens of recorded answers that are nothing but text of some length."""
    if not RECORDINGS.is_dir():
        return []
    found: dict[str, tuple[str, str, int]] = {}
    for entry in json.loads((RECORDINGS / "index.json").read_text()):
        usage: dict[str, Any] = entry.get("expected_usage") or {}
        tokens = usage.get("output_tokens") or usage.get("completion_tokens") or 0
        text = entry.get("expected_text") or ""
        expected = entry.get("expected") or {}
        plain = not any(expected.get(key) for key in ("thinking", "reasoning", "tool_calls", "texts"))
        if entry["provider"] in ("anthropic", "openai") and plain and len(text) > 400 and tokens:
            found[text] = (entry["provider"], text, tokens)
    return list(found.values())


@pytest.mark.skipif(not recorded_answers(), reason="no recorded provider answers beside the checkout")
def test_estimates_are_within_a_fifth_of_what_providers_counted() -> None:
    for provider, text, counted in recorded_answers():
        estimate = estimate_tokens(text) * (CLAUDE_FACTOR if provider == "anthropic" else 1)
        assert estimate == pytest.approx(counted, rel=0.2), (provider, text[:60])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("   ", 0),
        ("pension", 1),
        ("£12,570", 4),
        ("What is a pension?\n", 6),
        ("x" * 29, 3),
        ("年金", 2),
    ],
)
def test_what_counts_as_a_token(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def test_long_texts_count_the_same_when_asked_again() -> None:
    text = "A pension pot can stay invested. " * 200
    assert estimate_tokens(text) == estimate_tokens(text) == 200 * 7
