"""The check that watches the starts of prompts in other tests tells extension, shrinking and moving apart."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.llm.cache_marks import marks_of, prefix_move


def body(*texts: str, system: tuple[str, ...] = ("conduct", "rules"), marked: bool = False) -> dict[str, Any]:
    roles = ("user", "assistant")
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}} if marked else {}
    return {
        "system": [{"type": "text", "text": text, **mark} for text in system],
        "messages": [
            {"role": roles[place % 2], "content": [{"type": "text", "text": text}]} for place, text in enumerate(texts)
        ],
    }


@pytest.mark.parametrize(
    ("before", "after", "move"),
    [
        (body("facts, q1"), body("q1", "a1", "facts, q2"), "extended"),
        (body("facts, q1"), body("other facts, q1"), "extended"),
        (body("q1", "a1", "facts, q2"), body("facts, q1"), "shrunk"),
        (body("q1", "a1", "facts, q2"), body("q1", "a1!", "facts, q2"), "moved"),
        (body("q1"), body("q1", system=("conduct", "rules of today")), "moved"),
        (body("q1"), body("q1", "a1", "q2", system=("conduct",)), "moved"),
    ],
)
def test_a_prefix_is_extended_shrunk_or_moved(before: dict[str, Any], after: dict[str, Any], move: str) -> None:
    assert prefix_move(before, after) == move


def test_marks_do_not_move_a_prefix() -> None:
    assert prefix_move(body("q1"), body("q1", "a1", "q2", marked=True)) == "extended"
    assert marks_of(body("q1", marked=True)).breakpoints == ((0, "1h"), (1, "1h"))
