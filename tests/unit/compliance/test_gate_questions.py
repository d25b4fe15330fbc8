"""What the rules leave undecided is asked; text goes on behind it, nothing passes it, and the answer decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidance_agent.compliance.decided import UndecidedPolicy
from guidance_agent.compliance.gate import Marked, Question, Released, SentenceGate, Withholding
from guidance_agent.compliance.policy import load_policy
from guidance_agent.compliance.released import Answer
from tests.unit.compliance.word_rules import WordRules

DOUBTFUL = "Maybe it is time to move. "
WORDS = [*"aI. ,!?\n\u200b–", " steer ", " maybe ", " perhaps ", " certain ", " recommend ", "if ", "Word. ", "e.g. "]


def gate(undecided: UndecidedPolicy = "release_and_flag", *, asks: bool = True, before: str = "") -> SentenceGate:
    return SentenceGate(WordRules(), load_policy(), asks=asks, undecided=undecided, before=before)


def joined(items: Iterable[Released]) -> list[Released]:
    result: list[Released] = []
    for item in items:
        if isinstance(item, str) and result and isinstance(result[-1], str):
            result[-1] += item
        elif item:
            result.append(item)
    return result


def written(item: Released) -> str:
    if isinstance(item, str):
        return item
    return item.withheld if isinstance(item, Withholding) else item.text


def passed(
    pieces: Iterable[str], answers: Mapping[int, Answer | None], delays: Sequence[int], undecided: UndecidedPolicy
) -> tuple[list[Released], list[Question]]:
    """Feed the pieces and answer each question some pieces after it came up."""
    under_test = gate(undecided)
    released: list[Released] = []
    questions: list[Question] = []
    due: list[tuple[int, int]] = []
    for moment, piece in enumerate(pieces):
        released += under_test.feed(piece)
        for question in under_test.questions():
            questions.append(question)
            due.append((moment + delays[question.number % len(delays)], question.number))
        for when, number in [each for each in due if each[0] <= moment]:
            due.remove((when, number))
            released += under_test.answer(number, answers.get(number))
    released += under_test.finish(ask=True)
    questions += under_test.questions()
    for number in reversed(range(len(questions))):
        released += under_test.answer(number, answers.get(number))
    assert under_test.held == ""
    assert under_test.queued == 0
    return joined(released), questions


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(st.sampled_from(WORDS), max_size=80),
    answers=st.dictionaries(st.integers(0, 12), st.sampled_from(["breach", "permitted", None])),
    delays=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    undecided=st.sampled_from(["release_and_flag", "replace"]),
    data=st.data(),
)
def test_with_the_same_answers_any_chunking_and_any_delay_give_the_same(
    parts: list[str],
    answers: dict[int, Answer | None],
    delays: list[int],
    undecided: UndecidedPolicy,
    data: st.DataObject,
) -> None:
    text = "".join(parts)
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    bounds = [0, *places, len(text)]
    pieces = [text[start:end] for start, end in pairwise(bounds)]
    released, questions = passed(pieces, answers, delays, undecided)
    assert (released, questions) == passed([text], answers, [0], undecided)
    assert "".join(map(written, released)) == text


def test_nothing_passes_a_question_and_everything_follows_its_answer() -> None:
    under_test = gate()
    released = [*under_test.feed("One. " + DOUBTFUL + "Two. Steer it. Three. ")]
    assert joined(released) == ["One. "]
    (question,) = under_test.questions()
    assert (question.sentence, question.check) == (DOUBTFUL.strip(), "advice_boundary")
    assert question.context == "One. "
    assert under_test.queued == len(DOUBTFUL + "Two. Steer it. Three. ")
    marked, two, withheld, three = joined(under_test.answer(question.number, "permitted"))
    assert isinstance(marked, Marked) and marked.is_permitted and marked.text == DOUBTFUL
    assert (two, three) == ("Two. ", "Three. ")
    assert isinstance(withheld, Withholding) and withheld.asked is None


def test_answers_out_of_order_come_out_in_order() -> None:
    under_test = gate()
    under_test.feed("Maybe one. Maybe two. Maybe three. ")
    first, second, third = under_test.questions()
    assert under_test.answer(third.number, "permitted") == []
    assert under_test.answer(second.number, None) == []
    texts = [item.text for item in under_test.answer(first.number, "permitted") if isinstance(item, Marked)]
    assert texts == ["Maybe one. ", "Maybe two. ", "Maybe three. "]


@pytest.mark.parametrize("answer", ["breach", "permitted", None])
@pytest.mark.parametrize("undecided", ["release_and_flag", "replace"])
def test_an_answer_decides_and_none_leaves_it_to_the_policy(answer: Answer | None, undecided: UndecidedPolicy) -> None:
    under_test = gate(undecided)
    under_test.feed(DOUBTFUL)
    (item,) = under_test.answer(0, answer)
    is_shown = answer == "permitted" or (answer is None and undecided == "release_and_flag")
    assert isinstance(item, Marked if is_shown else Withholding)
    assert item.asked == (answer or "no_answer")


def test_the_first_answer_to_a_question_counts() -> None:
    under_test = gate()
    under_test.feed("Maybe one. Maybe two. ")
    under_test.answer(1, "breach")
    under_test.answer(1, "permitted")
    first, second = under_test.answer(0, None)
    assert isinstance(first, Marked) and isinstance(second, Withholding)


@pytest.mark.parametrize(("undecided", "kind"), [("release_and_flag", Marked), ("replace", Withholding)])
def test_without_somebody_to_ask_the_policy_decides_at_once(
    undecided: UndecidedPolicy, kind: type[Marked] | type[Withholding]
) -> None:
    under_test = gate(undecided, asks=False)
    (item,) = under_test.feed(DOUBTFUL)
    assert isinstance(item, kind) and item.asked is None
    assert under_test.questions() == []


def test_the_end_of_the_text_decides_what_is_held_and_asks_only_where_it_may() -> None:
    cut, whole = gate(), gate()
    for under_test in (cut, whole):
        assert joined(under_test.feed("It is maybe time to")) == ["It is "]
    (item,) = cut.finish()
    assert isinstance(item, Marked)
    assert item.text == "maybe time to"
    assert whole.finish(ask=True) == []
    assert [question.sentence for question in whole.questions()] == ["It is maybe time to"]


def test_the_question_of_the_customer_is_the_context_of_the_first_sentence() -> None:
    under_test = gate(before="Should I move it?")
    under_test.feed(DOUBTFUL)
    assert [question.context for question in under_test.questions()] == ["Should I move it?"]


def test_a_megabyte_of_doubt_waits_and_comes_out_whole() -> None:
    text = DOUBTFUL * (1_000_000 // len(DOUBTFUL))
    under_test = gate()
    assert joined(under_test.feed(text)) == []
    questions = under_test.questions()
    assert under_test.queued == len(text)
    released: list[Released] = []
    for question in questions:
        released += under_test.answer(question.number, "permitted")
    assert "".join(map(written, released)) == text
