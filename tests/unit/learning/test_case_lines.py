"""What a case may say: nothing personal of the question, nothing of the answer, and no figure."""

from __future__ import annotations

import pytest

from guidance_agent.learning.cases import LONGEST_ANSWER, LONGEST_QUESTION, CaseWriter
from tests.personal_data.corpus import planted

QUESTION = "What is the difference between drawdown and an annuity?"
ANSWER = "An annuity pays an income for life that is fixed when it is bought."


@pytest.fixture(scope="module")
def writer() -> CaseWriter:
    return CaseWriter()


def test_no_planted_personal_data_reaches_a_case_from_question_or_answer(writer: CaseWriter) -> None:
    leaks, lines = [], 0
    for number, text in enumerate(planted()):
        said = (f"{text.text}\n{QUESTION}", ANSWER) if number % 2 else (QUESTION, f"{text.text}\n{ANSWER}")
        line = writer.line(*said, text.known)
        lines += line is not None
        leaks += [f"{text.id}: {leak}" for leak in text.leaks_in(line or "")]
    assert lines > len(planted()) / 2
    assert leaks == []


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("My doctor says I have a year. " + QUESTION, ANSWER),
        ("I was made redundant in May. " + QUESTION, ANSWER),
        ("Is it 25%?", ANSWER),
        (QUESTION, "It is £12,570."),
        (QUESTION, ""),
    ],
)
def test_where_nothing_impersonal_is_left_there_is_no_case(question: str, answer: str, writer: CaseWriter) -> None:
    assert writer.line(question, answer, ()) is None


def test_a_case_is_one_short_line_without_marks_of_layout(writer: CaseWriter) -> None:
    line = writer.line(QUESTION * 9, f"## Options\n\n- **{ANSWER}**\n- {ANSWER}\n" * 20, ())
    assert line is None
    line = writer.line(f"{QUESTION}\n" * 20, f"## Options\n\n- **{ANSWER}**\n" * 20, ())
    assert line is not None
    assert "\n" not in line
    assert not set("#*") & set(line)
    assert len(line) <= LONGEST_QUESTION + LONGEST_ANSWER + len("Asked:  Answered: ")
