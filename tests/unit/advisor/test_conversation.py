"""Reading a caller's history: what is asked, what is refused, and where the conversation stands."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import pytest

from guidance_agent.advisor.conversation import (
    QUESTION_LIMIT,
    Conversation,
    Entry,
    Phase,
    emotional_tone,
    phase,
    read_conversation,
)
from guidance_agent.core.types import CustomerProfile, HistoryEntry
from guidance_agent.errors import HistoryError, NoQuestionError, PromptTooLongError


def asking(question: str | None = None) -> CustomerProfile:
    return CustomerProfile.parse({"customer_id": "c", "presenting_question": question})


def said(*texts: str) -> list[HistoryEntry]:
    return [{"role": "advisor" if index % 2 else "customer", "content": text} for index, text in enumerate(texts)]


def refusal(history: Sequence[Any], question: str | None = "Q?") -> str:
    with pytest.raises(HistoryError) as caught:
        read_conversation(asking(question), history)
    return str(caught.value)


@pytest.mark.parametrize("history", [None, [], ()])
def test_without_a_history_the_presenting_question_is_asked(history: Sequence[HistoryEntry] | None) -> None:
    assert read_conversation(asking("What is drawdown?"), history) == Conversation((), "What is drawdown?")


@pytest.mark.parametrize("customer", ["customer", "user"])
@pytest.mark.parametrize("advisor", ["advisor", "assistant"])
def test_every_name_of_a_role_means_the_same(customer: str, advisor: str) -> None:
    history = [
        {"role": customer, "content": "a"},
        {"role": advisor, "content": "b"},
        {"role": customer, "content": "c"},
    ]
    assert read_conversation(asking(), history) == Conversation((Entry("customer", "a"), Entry("advisor", "b")), "c")


def test_a_history_that_ends_with_the_customer_asks_its_last_entry() -> None:
    read = read_conversation(asking("Something else?"), said("a", "b", "c"))
    assert read.question == "c"
    assert read.history == (Entry("customer", "a"), Entry("advisor", "b"))


def test_a_history_that_ends_with_the_advisor_asks_the_presenting_question() -> None:
    assert read_conversation(asking("c"), said("a", "b")) == Conversation(
        (Entry("customer", "a"), Entry("advisor", "b")), "c"
    )


def test_one_customer_entry_alone_is_the_question() -> None:
    assert read_conversation(asking("a"), said("a")) == Conversation((), "a")


@pytest.mark.parametrize("question", ["a", " a\n"])
@pytest.mark.parametrize("history", [("a", "b"), (" a", "b"), ("x", "y", "a", "b")])
def test_a_presenting_question_that_was_answered_already_is_not_asked_again(
    question: str, history: tuple[str, ...]
) -> None:
    with pytest.raises(NoQuestionError, match="already answered"):
        read_conversation(asking(question), said(*history))


def test_only_the_customer_s_words_count_as_having_asked() -> None:
    assert read_conversation(asking("b"), said("a", "b")).question == "b"


@pytest.mark.parametrize("question", [None, "", "  \n\t"])
@pytest.mark.parametrize("history", [(), ("a", "b")])
def test_no_question_anywhere_is_an_error_of_its_own(question: str | None, history: tuple[str, ...]) -> None:
    with pytest.raises(NoQuestionError, match="no question"):
        read_conversation(asking(question), said(*history))


def test_texts_are_kept_exactly_because_the_records_compare_them() -> None:
    assert read_conversation(asking("  What is it?\n"), None).question == "  What is it?\n"
    read = read_conversation(asking(), said(" a ", "b\n\n", "\tc "))
    assert [entry.content for entry in read.history] == [" a ", "b\n\n"]
    assert read.question == "\tc "


def test_a_conversation_that_opens_with_a_greeting_of_the_advisor_says_what_to_leave_out() -> None:
    message = refusal([{"role": "advisor", "content": "Hello!"}, {"role": "customer", "content": "Hi"}])
    assert "entry 0" in message
    assert "greeting" in message


@pytest.mark.parametrize(("roles", "wrong"), [("cc", 1), ("caa", 2), ("cac" + "c", 3), ("cacaa", 4)])
def test_roles_that_do_not_alternate_are_named_by_their_place(roles: str, wrong: int) -> None:
    names = {"c": "customer", "a": "advisor"}
    assert f"entry {wrong} " in refusal([{"role": names[role], "content": "x"} for role in roles])


@pytest.mark.parametrize(
    "entry", [None, 7, "customer: hello", b"x", [], ["customer", "x"], ("customer", "x"), object()]
)
def test_an_entry_that_is_not_a_mapping_is_named_by_its_place_and_type(entry: object) -> None:
    message = refusal([*said("a", "b"), entry])
    assert "entry 2 " in message
    assert type(entry).__name__ in message


@pytest.mark.parametrize("entry", [{}, {"role": "customer"}, {"content": "x"}, {"speaker": "customer", "text": "x"}])
def test_an_entry_without_role_or_content_says_which_are_needed(entry: dict[str, str]) -> None:
    message = refusal([entry])
    assert "'role'" in message
    assert "'content'" in message


@pytest.mark.parametrize("role", ["system", "Customer", "", None, 1, ["user"], {"name": "user"}])
def test_an_unknown_role_is_shown_with_those_that_are_known(role: object) -> None:
    message = refusal([{"role": role, "content": "x"}])
    assert repr(role) in message
    assert "advisor, assistant, customer, user" in message


@pytest.mark.parametrize("content", [None, 5, b"x", ["x"], [{"type": "text", "text": "x"}], {"text": "x"}])
@pytest.mark.parametrize("role", ["customer", "advisor"])
def test_content_that_is_not_text_is_named_by_its_type(role: str, content: object) -> None:
    history = [{"role": "customer", "content": "x"}, {"role": role, "content": content}]
    history = history if role == "advisor" else history[1:]
    assert type(content).__name__ in refusal(history)


@pytest.mark.parametrize("content", ["", " ", "\n\t \u00a0\u2003"])
def test_a_customer_entry_without_words_is_refused(content: str) -> None:
    assert "entry 0 has no text" in refusal([{"role": "customer", "content": content}])
    assert "entry 2 has no text" in refusal([*said("a", "b"), {"role": "customer", "content": content}])


@pytest.mark.parametrize("bad", ["\x00", "\x1b", "\x08", "\x0c", "\ud800", "\udfff"])
def test_control_characters_and_lone_surrogates_of_a_customer_are_refused(bad: str) -> None:
    assert "entry 0" in refusal([{"role": "customer", "content": f"a{bad}b"}])


@pytest.mark.parametrize("delivered", ["\n\n", " ", "a\x0cb", "a\x1b[1mb", "a\ufffdb"])
def test_whatever_was_delivered_is_taken_back_as_history(delivered: str) -> None:
    assert read_conversation(asking("Q?"), said("a", delivered)).history[1] == Entry("advisor", delivered)


@pytest.mark.parametrize("impossible", ["", "a\x00b", "a\ud800b"])
def test_what_cannot_have_been_delivered_is_refused(impossible: str) -> None:
    assert "entry 1" in refusal(said("a", impossible))


@pytest.mark.parametrize("kind", [dict, UserDict, MappingProxyType])
def test_any_mapping_will_do_and_further_keys_are_ignored(kind: Any) -> None:
    entry = kind({"role": "user", "content": "Hi?", "timestamp": "2026-11-21", "id": 3})
    assert read_conversation(asking(), [entry]).question == "Hi?"


def test_a_history_of_ten_thousand_entries_is_read_whole() -> None:
    history = said(*(f"text {number}" for number in range(10_000)))
    read = read_conversation(asking("new?"), history)
    assert len(read.history) == 10_000
    assert read.history[9_999] == Entry("advisor", "text 9999")


def test_reading_changes_nothing_of_what_was_passed() -> None:
    history = said("a", "b", "c")
    read_conversation(asking(), history)
    assert history == said("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "tone"),
    [
        ("What is an annuity?", "neutral"),
        ("I'm really worried about running out of money", "anxious"),
        ("This keeps me stressed", "anxious"),
        ("I can't cope any more", "distressed"),
        ("I can’t go on like this", "distressed"),
        ("I just want to end it all", "distressed"),
        ("I want to die", "distressed"),
        ("My wife died and I am grieving", "distressed"),
        ("They say I must sign today", "urgent"),
        ("I have to decide by Friday", "urgent"),
        ("It is URGENT", "urgent"),
        ("I don’t understand any of this", "confused"),
        ("What does crystallised mean?", "confused"),
        ("This is ridiculous, nobody listens", "frustrated"),
        ("I'm desperate and worried and must decide today", "distressed"),
        ("I'm worried, the deadline is near", "urgent"),
    ],
)
def test_the_strongest_tone_of_the_words_is_heard(text: str, tone: str) -> None:
    assert emotional_tone(text) == tone


@pytest.mark.parametrize(
    "text",
    [
        "What is the State Pension today?",
        "I need to know today's allowance",
        "Is my pension afflicted by the new rules?",
        "How does a griever's benefit work?",
        "Is a distressing amount of tax due?",
        "What does it cost to transfer?",
        "My father is a panel beater",
        "By Fridays I mean most weeks",
        "",
    ],
)
def test_words_that_only_look_like_a_tone_are_neutral(text: str) -> None:
    assert emotional_tone(text) == "neutral"


def at(turns: int, question: str) -> Phase:
    return phase(Conversation((Entry("customer", "q"), Entry("advisor", "a")) * turns, question))


@pytest.mark.parametrize(
    ("turns", "expected"), [(0, "opening"), (1, "exploring"), (2, "explaining"), (9, "explaining")]
)
def test_a_phase_follows_from_how_much_was_said(turns: int, expected: Phase) -> None:
    assert at(turns, "What is an annuity?") == expected


@pytest.mark.parametrize(
    "question", ["Thanks, that's all.", "thank you!", "That’s all", "Bye", "Nothing else, goodbye"]
)
def test_a_customer_who_says_goodbye_is_closing(question: str) -> None:
    assert at(3, question) == "closing"


@pytest.mark.parametrize(
    "question",
    [
        "Thank you. Can I also transfer my other pension?",
        "Thanks, but what about the tax?",
        "Thank you. " + "Here is more about my pension and my plans. " * 6,
        "A thankless job left me with three pots",
    ],
)
def test_thanks_before_more_to_come_are_not_a_goodbye(question: str) -> None:
    assert at(3, question) == "explaining"


@pytest.mark.parametrize(
    "question",
    [
        "So that means a quarter is tax free?",
        "Right, so you mean I lose the guarantee?",
        "OK. So I pay tax on the rest?",
        "If I understand it, the pot stays invested",
        "Do I have that right?",
    ],
)
def test_a_customer_who_says_it_back_is_checking_understanding(question: str) -> None:
    assert at(1, question) == "checking_understanding"


@pytest.mark.parametrize("question", ["My mum died so I inherited a pension", "I am 58, so I can take it now"])
def test_a_reason_is_not_a_check_of_understanding(question: str) -> None:
    assert at(1, question) == "exploring"


def test_a_very_long_text_has_a_tone_and_a_phase() -> None:
    text = "what does " * 50_000 + "so i " * 50_000
    assert emotional_tone(text) == "neutral"
    assert at(0, text) == "opening"


@pytest.mark.parametrize("in_history", [True, False])
def test_a_question_longer_than_forty_pages_is_refused(in_history: bool) -> None:
    longest, too_long = "x" * QUESTION_LIMIT, "x" * (QUESTION_LIMIT + 1)
    for question in (longest, too_long):
        customer = CustomerProfile(customer_id="c", presenting_question=None if in_history else question)
        history = [{"role": "customer", "content": question}] if in_history else []
        if question is longest:
            assert read_conversation(customer, history).question == longest
            continue
        with pytest.raises(PromptTooLongError, match=str(QUESTION_LIMIT)):
            read_conversation(customer, history)
