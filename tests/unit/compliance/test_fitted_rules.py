"""What the fitted models decide, and what they leave to somebody else."""

from __future__ import annotations

import pytest

from guidance_agent.compliance.language import Words, tokens_of
from guidance_agent.compliance.sentences import SentenceVerdict
from guidance_agent.compliance.standard_rules import sentence_rules


def verdict(text: str) -> SentenceVerdict:
    return sentence_rules().judge(Words(tokens_of(text)), text, "")


@pytest.mark.parametrize(
    "text",
    [
        "<thinker>, <thinking>",
        "<thinking></thinking> <thinker>",
        "<b><i>you</i></b> <br/>",
        "should_take(pot_id, xq_17) -> zxcv_qwer",
        "Qwer you zxcv should asdf hjkl take vbnm",
        "Best left.",
    ],
)
def test_what_is_hardly_words_is_never_decided_by_a_score(text: str) -> None:
    assert verdict(text).decision in ("pass", "undecided")


@pytest.mark.parametrize(
    "text",
    [
        "If I were you, I would take the whole pot out now.",
        "You should take it now.",
        "<p>If I were you, I would take the whole pot out now.</p>",
    ],
)
def test_a_steer_in_plain_words_is_decided(text: str) -> None:
    assert verdict(text).decision == "breach"


def test_a_whole_sentence_passes_just_when_no_word_of_it_completes_a_cue() -> None:
    rules = sentence_rules()
    for text in (
        "A pension can be taken in several ways.",
        "If I were you, I would take it.",
        "",
        "“",
        "You should go.",
    ):
        tokens = tokens_of(text)
        reader = rules.reader("")
        is_cued = any(reader.read(token, text) is not None for token in tokens)
        assert rules.passes([token.text for token in tokens]) is not is_cued, text
