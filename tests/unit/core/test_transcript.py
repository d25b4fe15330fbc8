"""A conversation's fingerprint: order, roles and texts all count, and nothing else does."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guidance_agent.core.transcript import EMPTY_TRANSCRIPT, extend_transcript, text_hash, transcript_hash
from guidance_agent.core.types import ConversationRole

Entries = list[tuple[ConversationRole, str]]
ROLES = st.sampled_from(["customer", "advisor"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ENTRIES = st.lists(st.tuples(ROLES, TEXTS), max_size=6)


@given(ENTRIES, ENTRIES)
def test_different_conversations_have_different_fingerprints(first: Entries, second: Entries) -> None:
    assume(first != second)
    assert transcript_hash(first) != transcript_hash(second)


@given(ENTRIES, ENTRIES)
def test_a_fingerprint_grows_entry_by_entry_to_that_of_the_whole(before: Entries, after: Entries) -> None:
    fingerprint = transcript_hash(before)
    for role, text in after:
        fingerprint = extend_transcript(fingerprint, role, text_hash(text))
    assert fingerprint == transcript_hash([*before, *after])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([("customer", "a"), ("advisor", "bc")], [("customer", "ab"), ("advisor", "c")]),
        ([("customer", "a"), ("advisor", "b")], [("customer", "b"), ("advisor", "a")]),
        ([("customer", "a"), ("advisor", "b")], [("advisor", "b"), ("customer", "a")]),
        ([("customer", "a")], [("advisor", "a")]),
        ([("customer", "a")], [("customer", "a"), ("advisor", "")]),
        ([("customer", "a\nadvisor\nb")], [("customer", "a"), ("advisor", "b")]),
        ([("customer", "é")], [("customer", "e\u0301")]),
        ([("customer", "a ")], [("customer", "a")]),
        ([], [("customer", "")]),
    ],
)
def test_look_alikes_are_told_apart(first: Entries, second: Entries) -> None:
    assert transcript_hash(first) != transcript_hash(second)


def test_no_permutation_of_a_conversation_has_the_same_fingerprint() -> None:
    entries: Entries = [("customer", "a"), ("advisor", "b"), ("customer", "c"), ("advisor", "d")]
    assert len({transcript_hash(order) for order in itertools.permutations(entries)}) == 24


def test_nothing_said_is_the_fingerprint_of_nothing() -> None:
    assert transcript_hash([]) == EMPTY_TRANSCRIPT == hashlib.sha256().hexdigest()


def test_text_is_hashed_in_utf_8_and_a_fingerprint_fits_its_column() -> None:
    assert text_hash("£😀") == hashlib.sha256("£😀".encode()).hexdigest()
    assert len(transcript_hash([("customer", "x" * 100_000)])) == 64
