"""Compares the figures of a sentence with the dated facts: the wrong amount, and the right one of another year.

A number is compared only where the sentence, or what stands before it, makes clear which figure it is meant to be. It
is left alone when it is somebody's own, an example, reported or denied, or given with the time for which it was right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Literal

from guidance_agent.compliance.figure_context import FigureContext
from guidance_agent.compliance.figure_index import NOTHING_CALLED, Called, TopicIndex
from guidance_agent.compliance.figure_readings import FigureReading, FigureSentence, NamesHere, WrongFigure
from guidance_agent.compliance.figure_statements import Statements
from guidance_agent.compliance.figure_topics import figure_rules
from guidance_agent.compliance.figure_values import is_value
from guidance_agent.compliance.language import Words
from guidance_agent.compliance.quantities import MARKS, QuantityReader, holds_number
from guidance_agent.compliance.sums import StatedSum, stated_sums
from guidance_agent.knowledge.loader import Knowledge

__all__ = ["FigureChecker", "FigureFinding"]

FigureCheck = Literal["figure_amount", "figure_year"]
_CONTEXTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureFinding:
    """A figure that is wrong.

    Attributes:
        check: `figure_year` when it is the figure of another time, `figure_amount` otherwise.
        start, end: Where it stands in the text.
        said: What stands there.
        right: What would be right, in words.
        period: When that holds.
        figure: Id of the figure, or of the sum that was redone.
        fact: Id of the fact that states it; None for a sum and for a figure that no fact states.
        score: How sure it is, at most 1.
    """

    check: FigureCheck
    start: int
    end: int
    said: str
    right: str
    period: str
    figure: str
    fact: str | None
    score: float


class FigureChecker:
    """Checks sentences against a knowledge base. Immutable; may be shared between threads."""

    def __init__(self, knowledge: Knowledge) -> None:
        rules = figure_rules(knowledge)
        self.topics = rules.topics
        self._alphabet = rules.alphabet
        self._statements = Statements(rules.statements, rules.alphabet)
        self.stating_words = self._statements.words
        """Words of which every statement of another time has one."""
        self.index = TopicIndex(rules.topics)
        self.naming_words = frozenset().union(*(sought.needs for topic in self.topics for sought in topic.names))
        """Words of which every name of a figure has one."""
        self.called_by_marks = 0
        """What marks call for that stand for numbers, as values of the index."""
        for mark in MARKS:
            self.called_by_marks |= self.index.by_word.get(mark, 0)
        self.context = lru_cache(maxsize=_CONTEXTS)(self._read_context)

    def may_speak_of(self, words: Words) -> bool:
        """Whether a sentence can hold anything that `check` finds; costs much less than `check`."""
        return holds_number(words) or not self._statements.words.isdisjoint(words.vocabulary)

    def check(
        self, words: Words, text: str, *, on: date, before: FigureContext | Words | None = None
    ) -> list[FigureFinding]:
        """Return what is wrong in one sentence.

        Args:
            words: The sentence.
            text: The text into which the offsets of its tokens point.
            on: The day on which it is said.
            before: What stands before it, such as the question that it answers.
        """
        context = FigureContext(before, self._alphabet) if isinstance(before, Words) else before
        found = list(self.untimely(words, text, on=on, before=context))
        if holds_number(words):
            reader = QuantityReader()
            reader.read(words.tokens, text)
            found += self.wrong_figures(reader, text, on=on, before=context)
        found.sort(key=lambda finding: (finding.start, finding.end))
        return found

    def untimely(self, words: Words, text: str, *, on: date, before: FigureContext | None) -> Iterator[FigureFinding]:
        """Yield what a sentence states as if it held already; arguments as in `check`."""
        for statement, start, end in self._statements.untimely(words, on=on, before=before):
            yield FigureFinding(
                check="figure_year",
                start=start,
                end=end,
                said=text[start:end],
                right=statement.right,
                period=f"from {statement.effective_from}",
                figure=statement.id,
                fact=statement.fact,
                score=0.9,
            )

    def wrong_figures(
        self, read: QuantityReader, text: str, *, on: date, before: FigureContext | None
    ) -> Iterator[FigureFinding]:
        """Yield which numbers of a sentence are wrong, once they have been read; other arguments as in `check`."""
        if read.numbers:
            yield from self._figures(FigureSentence(read, text, on, before, self.index, self._alphabet))

    def _figures(self, sentence: FigureSentence) -> Iterator[FigureFinding]:
        sums = list(stated_sums(sentence.marked, sentence.quantities)) if sentence.may_state_sum else []
        yield from (_wrong_sum(each, each.right, sentence) for each in sums if each.right is not None)
        readings = self._readings(sentence)
        if not any(reading.may_be_wrong for reading in readings):
            return
        for reading in readings:
            reading.judge()
        settled = {place for reading in readings for place in reading.right}
        # A result that was redone is no figure of its own.
        redone = {each.start for each in sums}
        for reading in sorted(readings, key=lambda reading: -reading.score):
            for wrong in reading.wrong:
                if wrong.place in settled or wrong.quantity.start in redone:
                    continue
                # Where the figure is given rightly, what else stands beside it is an example or a comparison, unless
                # it is expressly given as today's.
                if reading.right and not wrong.claim.named:
                    continue
                settled.add(wrong.place)
                yield _finding(reading, wrong, sentence)
                break

    def _readings(self, sentence: FigureSentence) -> list[FigureReading]:
        """Return what the sentence says of each figure, unless none of it can be wrong."""
        index, context = self.index, sentence.before
        fitting = sentence.any_fitting
        if not fitting:
            return []
        called, elliptic = index.called(sentence.here.vocabulary), sentence.elliptic
        if not fitting & (called.names | called.says | called.then | elliptic):
            return []
        suspects = sentence.suspects
        before = NOTHING_CALLED
        if context is not None:
            # Seldom does what stands before add anything, and its words without their places tell.
            before = context.called(index)
            if not before.adds(called, elliptic, fitting):
                before = NOTHING_CALLED
        possible = fitting & called.collecting(before, elliptic)
        if not possible or not (possible & suspects or sentence.speaks_of_other_time):
            return []
        accepting = index.accepting(sentence.quantities)
        here, there = called.any_topic & accepting, before.any_topic & accepting
        possible = fitting & (here | there) & called.collecting(before, elliptic)
        if not possible:
            return []
        names = NamesHere((topic for _, topic in index.topics(here & called.names)), sentence.here)
        first = self._collected(possible & suspects, sentence, names, before)
        if not any(reading.may_be_wrong for reading in first.values()) and not sentence.speaks_of_other_time:
            return []
        found = first | self._collected(possible & ~suspects, sentence, names, before)
        return [found[bit] for bits in (here, ~here) for bit in sorted(found) if bit & bits]

    def _collected(
        self, topics: int, sentence: FigureSentence, names: NamesHere, before: Called
    ) -> dict[int, FigureReading]:
        found = {}
        for bit, topic in self.index.topics(topics):
            if not topic.may_be_said(sentence.here.vocabulary, sentence.before):
                continue
            reading = FigureReading(topic, bit, sentence)
            reading.collect(names, before)
            if reading.places:
                found[bit] = reading
        return found

    def _read_context(self, before: str) -> FigureContext | None:
        return FigureContext(before, self._alphabet) if before else None


def _wrong_sum(wrong: StatedSum, right: str, sentence: FigureSentence) -> FigureFinding:
    return FigureFinding(
        check="figure_amount",
        start=wrong.start,
        end=wrong.end,
        said=sentence.text[wrong.start : wrong.end],
        right=right,
        period="always",
        figure=wrong.sum,
        fact=None,
        score=1.0,
    )


def _finding(reading: FigureReading, wrong: WrongFigure, sentence: FigureSentence) -> FigureFinding:
    topic, claim, quantity = reading.topic, wrong.claim, wrong.quantity
    holding = [value for value in topic.values if value.first <= claim.last and claim.first <= value.last]
    is_of_another_time = any(is_value(quantity, value, approximate=False) for value in topic.values)
    allowed = reading.allowed_by_birth()
    right = next((value for value in holding if value.value in allowed), (holding or topic.values)[0])
    return FigureFinding(
        check="figure_year" if topic.kind == "date" or (is_of_another_time and not allowed) else "figure_amount",
        start=quantity.start,
        end=quantity.end,
        said=sentence.text[quantity.start : quantity.end],
        right=" or ".join([f"age {value}" for value in allowed]) or right.text,
        period=right.period,
        figure=right.figure,
        fact=right.fact,
        score=wrong.score,
    )
