"""Terms of a text: forms of a word meet, amounts are read alike, and ordinary words carry their meaning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.core.shipped import read_shipped
from guidance_agent.errors import KnowledgeError
from guidance_agent.retrieval.lexical import Lexicon, PhraseMatcher, load_lexicon, stem, words
from guidance_agent.retrieval.topics import _TopicFile


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("transferring", "transfers"),
        ("pensions", "pension"),
        ("taxed", "taxes"),
        ("annuities", "annuity"),
        ("withdrawals", "withdrawal"),
        ("automatically", "automatic"),
        ("guaranteed", "guarantees"),
        ("called", "call"),
        ("enrolled", "enrol"),
        ("stopped", "stop"),
    ],
)
def test_forms_of_one_word_have_one_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


@pytest.mark.parametrize("word", ["tax", "55", "gas", "status", "ni"])
def test_short_words_and_numbers_keep_their_form(word: str) -> None:
    assert stem(word) == word


@pytest.mark.parametrize("amount", ["£30,000", "£30k", "30K", "30000"])
def test_an_amount_is_one_word_however_it_is_written(amount: str) -> None:
    assert words(amount) == ["30000"]


def test_typographic_and_plain_apostrophes_are_one() -> None:
    assert words("I’m 55, it's Harold’s") == words("I'm 55, it's Harold's") == ["i'm", "55", "it", "harold"]


def test_a_phrase_is_found_in_any_form_of_its_words() -> None:
    matcher = PhraseMatcher({"scam": ["cold call"], "db": ["final salary", "transfer value"]})

    def found(text: str) -> list[str]:
        return list(matcher.find([stem(word) for word in words(text)]))

    assert found("cold calling about my final salary") == ["scam", "db"]
    assert found("the final say, and a salary") == []


def test_ordinary_words_bring_their_concept() -> None:
    assert "=death" in load_lexicon().terms("My husband passed away in May")
    assert "=safeguarded" in load_lexicon().terms("I have a final salary scheme")


def test_words_that_say_nothing_leave_no_terms() -> None:
    assert load_lexicon().terms("What should I do about it?") == {}


def test_a_word_said_twice_counts_less_than_double() -> None:
    lexicon = Lexicon(silent=(), faint=(), concepts={})
    assert 1 < lexicon.terms("tax tax")["tax"] < 2


@given(st.text(max_size=300))
def test_any_text_has_terms_with_positive_weights(text: str) -> None:
    assert all(weight > 0 for weight in load_lexicon().terms(text).values())


def test_terms_are_equal_in_a_process_with_another_hash_seed() -> None:
    program = (
        "from guidance_agent.retrieval.hashed import HashedEmbedder as H;"
        "import hashlib; print(hashlib.sha256(H().vectors(['Is my final salary pension safe?']).tobytes()).hexdigest())"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1


def test_a_file_that_is_not_what_it_should_be_is_named(tmp_path: Path) -> None:
    file = tmp_path / "topics.yaml"
    file.write_text("topics: 3", encoding="utf-8")
    with pytest.raises(KnowledgeError, match=r"topics\.yaml"):
        read_shipped(file, _TopicFile)
    with pytest.raises(KnowledgeError, match=r"absent\.yaml"):
        read_shipped(tmp_path / "absent.yaml", _TopicFile)
